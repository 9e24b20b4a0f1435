//! Making the tables: by many at once, by others beforehand, by nobody.

use estafette_core::{ErrorKind, Transport as _};
use estafette_sql::{ServerConfig, SqlTransport, migrate, migrations};

use crate::common::{Place, open, open_with_queue, send};

async fn eight_at_once(place: Place) {
    let mut opening = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let url = place.url.clone();
        opening.spawn(async move { open_with_queue(&url).await });
    }
    for (number, transport) in opening.join_all().await.into_iter().enumerate() {
        send(&transport, number..number + 1).await.unwrap();
        transport.close().await.unwrap();
    }
    let transport = open(&place.url).await;
    let queues = transport.admin().queues().await.unwrap();
    assert_eq!(queues.iter().map(|queue| queue.ready).collect::<Vec<_>>(), [8]);
    transport.close().await.unwrap();
    place.clear().await;
}

#[tokio::test]
async fn a_new_database_may_be_opened_by_eight_at_once_on_postgres() {
    eight_at_once(Place::postgres().await).await;
}

#[tokio::test]
async fn a_new_database_may_be_opened_by_eight_at_once_on_mysql() {
    eight_at_once(Place::mysql().await).await;
}

async fn somebody_else_migrates(place: Place, off: &str) {
    let config = |url: &str| ServerConfig::from_url(url.parse().unwrap()).unwrap();
    let not_ours = config(&format!("{}{off}", place.url));
    let error = SqlTransport::connect_to_server(not_ours.clone()).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.report().contains("estafette migrate"), "{}", error.report());
    let newest = migrations(&not_ours).len();
    assert_eq!(migrate(&config(&place.url)).await.unwrap(), (0, newest));
    assert_eq!(migrate(&config(&place.url)).await.unwrap(), (newest, newest));
    SqlTransport::connect_to_server(not_ours).await.unwrap().close().await.unwrap();
    place.clear().await;
}

#[tokio::test]
async fn tables_may_be_somebody_elses_to_make_on_postgres() {
    somebody_else_migrates(Place::postgres().await, "&migrate=off").await;
}

#[tokio::test]
async fn tables_may_be_somebody_elses_to_make_on_mysql() {
    somebody_else_migrates(Place::mysql().await, "?migrate=off").await;
}

#[tokio::test]
async fn a_newer_programs_tables_are_left_alone() {
    let place = Place::postgres().await;
    open(&place.url).await.close().await.unwrap();
    place.execute(&format!("UPDATE {}.estafette_schema SET version = 99", place.name)).await;
    let config = ServerConfig::from_url(place.url.parse().unwrap()).unwrap();
    let error = SqlTransport::connect_to_server(config).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    place.clear().await;
}

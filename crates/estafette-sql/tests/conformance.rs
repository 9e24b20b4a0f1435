//! The contract, kept by every engine.

#![allow(clippy::panic, clippy::expect_used, reason = "a test fails by panicking")]

mod sqlite {
    estafette_conformance::suite!(estafette_sql::connect, |directory| format!(
        "sqlite:{}/mail.db",
        directory.display()
    ));
}

mod postgres {
    // Every test in the same schema, at once: their queues are their own.
    estafette_conformance::suite!(estafette_sql::connect, |_directory| format!(
        "{}?schema=estafette_conformance",
        crate::server("ESTAFETTE_TEST_POSTGRES_URL")
    ));
}

mod mysql {
    estafette_conformance::suite!(estafette_sql::connect, |_directory| crate::mysql_database());
}

/// A database for every test at once, made by the first.
fn mysql_database() -> String {
    let server = server("ESTAFETTE_TEST_MYSQL_URL");
    let (address, _database) = server.rsplit_once('/').expect("the URL names a database");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime can be built").block_on(async {
        let mut connection =
            <sqlx::MySqlConnection as sqlx::Connection>::connect(&server).await.expect("the server answers");
        let create = sqlx::raw_sql("CREATE DATABASE IF NOT EXISTS estafette_conformance");
        create.execute(&mut connection).await.expect("a database can be made");
    });
    format!("{address}/estafette_conformance")
}

/// The URL of a server.
fn server(variable: &str) -> String {
    let Ok(url) = std::env::var(variable) else {
        panic!(
            "this test needs {variable}: run `scripts/services up`, then `eval \"$(scripts/services env)\"`"
        );
    };
    url
}

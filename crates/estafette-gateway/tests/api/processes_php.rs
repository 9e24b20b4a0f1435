//! What the published PHP clients send, replayed by PHP itself, with the types they declare.

use std::{path::Path, process::Stdio};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};

use crate::{Stage, within};

#[tokio::test]
#[ignore = "needs php: apt-get install php-cli, then --run-ignored all"]
async fn the_published_clients_requests_are_answered() {
    let stage = Stage::new().await;
    let mut user = stage.user().await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/api/published_client.php");
    let mut php = Command::new("php")
        .arg(script)
        .arg(stage.discovery.to_string())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(php.stdout.take().unwrap()).lines();
    let mut printed = Vec::new();
    while let Some(line) = within(lines.next_line()).await.unwrap() {
        if line == "consuming" {
            user.send("hello").await;
        } else {
            printed.push(line);
        }
    }
    let done = |id: u32| format!(r#"{{"E":null,"r":{{"s":true}},"i":{id}}}"#);
    let mut expected = vec![done(1), r#"queue.pop foo {"frame":{"data":"hello"}}"#.into()];
    expected.extend((2..=6).map(done));
    expected.push(r#"{"E":null,"r":{"s":1,"f":0},"i":7}"#.into());
    let long = r#"{"error":null,"result":{"success":true,"fail":0,"total":1},"id":0}"#;
    expected.extend([long.into(), long.into(), done(8)]);
    assert_eq!(printed, expected);
    assert_eq!(user.next().await.unwrap(), r#"{"result":"ok"}"#);
    assert_eq!(user.next().await.unwrap(), "Ж/".repeat(4_000));
    assert_eq!(user.next().await.unwrap(), r#"{"broadcast":"ok"}"#);
    stage.end().await;
}

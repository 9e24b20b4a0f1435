//! The examples: workers in Rust, and in other languages over one JSON object a line.

use std::{path::Path, time::Duration};

use estafette_core::{Error, ErrorKind};
use estafette_workers::{Context, To, Worker};
use serde_json::{Value, json};

use crate::{
    programs::builder,
    stage::{Stage, WAIT_MAX, pids, runs},
};

const SECOND: Duration = Duration::from_secs(5);

fn example(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name).display().to_string()
}

/// A process in Rust beside the workers in another language.
async fn scheduler(worker: Worker) -> Result<(), Error> {
    worker.on("ask", |name: String, context: Context| async move {
        context.worker().request::<_, Value>("greet", &name, To::One(1), SECOND).await
    });
    worker.stopping().await;
    Ok(())
}

#[test]
#[ignore = "a program that tests start"]
fn python() {
    let group = builder("python", 2).arguments(arguments("python"));
    group.process("scheduler", scheduler).run_command(["python3", &example("worker.py")]).unwrap();
}

#[test]
#[ignore = "a program that tests start"]
fn node() {
    let group = builder("node", 2).arguments(arguments("node"));
    group.process("scheduler", scheduler).run_command(["node", &example("worker.js")]).unwrap();
}

fn arguments(program: &str) -> [String; 4] {
    ["--ignored".into(), "--exact".into(), format!("languages::{program}"), "--nocapture".into()]
}

/// What a worker of either language must do.
async fn works(program: &str, language: &str) {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(arguments(program));
    let mut stage = Stage::start_command(command);
    let group = stage.group().await;
    let status = stage.all_up(&group).await;

    let ask = async |action: &str, data: Value, to: To<'_>| {
        group.request::<_, Value>(action, &data, to, SECOND).await
    };
    let greeting = |id: u32| json!(format!("Hello Ann, from {language} worker {id}"));
    assert_eq!(
        ask("greet", json!("Ann"), To::One(0)).await.unwrap(),
        greeting(0),
        "answers frames with lines"
    );
    assert_eq!(ask("relay", json!("Ann"), To::One(0)).await.unwrap(), greeting(1), "asks another");
    assert_eq!(
        ask("ask", json!("Ann"), To::Process("scheduler")).await.unwrap(),
        greeting(1),
        "asked by Rust"
    );
    assert_eq!(group.send("remember", &"with\na line feed", To::All).await.unwrap(), 2);
    let expected = json!(["Ann was here", "with\na line feed"]);
    assert_eq!(ask("remembered", Value::Null, To::One(1)).await.unwrap(), expected);
    let error = ask("unheard-of", Value::Null, To::One(0)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let counts =
        group.status().await.unwrap().members.iter().find(|member| member.address == "0").unwrap().counts;
    let counts = counts.map(|counts| (counts.messages_in, counts.messages_out));
    assert_eq!(counts, Some((4, 2)), "greet, relay, remember and unheard-of; what relay said and asked");

    group.reload(WAIT_MAX).await.unwrap();
    let after = pids(&stage.all_up(&group).await);
    assert!(after.iter().all(|pid| !pids(&status).contains(pid)));
    assert_eq!(ask("greet", json!("Ann"), To::One(0)).await.unwrap(), greeting(0));
    stage.signal(rustix::process::Signal::TERM);
    assert!(stage.ended().await);
    assert!(!after.iter().any(|pid| runs(*pid)));
    assert!(stage.text("output").contains("[1] ready"), "their lines are passed on");
    assert!(!stage.text("output").contains("did not stop in time"), "they stop when told");
}

#[tokio::test]
async fn a_worker_in_python_listens_answers_sends_asks_and_stops() {
    works("python", "Python").await;
}

#[tokio::test]
async fn a_worker_in_node_listens_answers_sends_asks_and_stops() {
    works("node", "Node").await;
}

#[test]
fn the_example_in_rust_prints_what_its_header_promises() {
    // Cargo puts tests into `<profile>/deps` and examples into `<profile>/examples`.
    let test = std::env::current_exe().unwrap();
    let program = test.parent().unwrap().parent().unwrap().join("examples/01_workers");
    let directory = tempfile::Builder::new().prefix("est").tempdir_in("/tmp").unwrap();
    let output =
        std::process::Command::new(program).env("XDG_RUNTIME_DIR", directory.path()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let mut printed: Vec<&str> = text.lines().collect();
    printed.sort_unstable();
    let source = std::fs::read_to_string(example("01_workers.rs")).unwrap();
    let mut promised: Vec<&str> = source.lines().filter_map(|line| line.strip_prefix("//! | ")).collect();
    promised.sort_unstable();
    assert_eq!(printed, promised);
}

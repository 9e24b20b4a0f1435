//! A short form of the program `nothing-lost`; run the program itself for the long one.

use std::process::Command;

fn torment(transport: &str) {
    let rounds = if std::env::var_os("ESTAFETTE_TEST_LONG").is_some() { "300" } else { "25" };
    let scratch = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_nothing-lost"))
        .args([transport, "--rounds", rounds, "--messages", "6000", "--dir"])
        .arg(scratch.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("nothing lost"), "{said}");
}

#[test]
fn nothing_is_lost_on_drop_files() {
    torment("file");
}

#[test]
fn nothing_is_lost_on_sqlite() {
    torment("sqlite");
}

//! A short form of the program `nothing-lost`; run the program itself for the long one.

use std::process::Command;

/// Runs the program and returns what it printed.
fn torment(transport: &str) -> anyhow::Result<String> {
    let rounds = if std::env::var_os("ESTAFETTE_TEST_LONG").is_some() { "300" } else { "25" };
    let scratch = tempfile::tempdir()?;
    let output = Command::new(env!("CARGO_BIN_EXE_nothing-lost"))
        .args([transport, "--rounds", rounds, "--messages", "6000", "--dir"])
        .arg(scratch.path())
        .output()?;
    let said = format!("{}{}", String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    anyhow::ensure!(output.status.success(), "{}: {said}", output.status);
    Ok(said)
}

#[test]
fn nothing_is_lost_on_drop_files() {
    let said = torment("file").unwrap();
    assert!(said.contains("nothing lost"), "{said}");
}

#[test]
fn nothing_is_lost_on_sqlite() {
    let said = torment("sqlite").unwrap();
    assert!(said.contains("nothing lost"), "{said}");
}

//! Runs every example and compares what it prints with what its header promises.
//!
//! An example's header has the command to run and the output to expect; `…` stands for any text within a line:
//!
//! ```text
//! //! Run: cargo run --example 01_hello
//! //! Expect:
//! //! | sent …
//! //! | hello, Bob
//! ```
//!
//! The programs are those cargo built beside this test (a plain `cargo test` or `cargo nextest run` builds
//! them); nothing is built here.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

const RUN_TIME_MAX: Duration = Duration::from_secs(60);
const LINES_MAX: usize = 80;

#[test]
fn every_example_prints_what_its_header_promises() {
    let sources = example_sources();
    assert!(!sources.is_empty(), "there is no example in crates/estafette/examples");
    let failures: Vec<String> = sources
        .iter()
        .filter_map(|source| check(source).err().map(|problem| format!("{}: {problem}", source.display())))
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// Every example's source, in learning order.
fn example_sources() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let Ok(listing) = fs::read_dir(&folder) else { return Vec::new() };
    let mut sources: Vec<PathBuf> = listing
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect();
    sources.sort();
    sources
}

/// Says what is wrong with an example, if anything.
fn check(source: &Path) -> Result<(), String> {
    let name = source.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let text = fs::read_to_string(source).map_err(|error| error.to_string())?;
    let expected = expected_lines(&name, &text)?;
    let printed = run(&name)?;
    let printed: Vec<&str> = printed.lines().collect();
    let agree = printed.len() == expected.len()
        && printed.iter().zip(&expected).all(|(printed, expected)| matches(expected, printed));
    if agree {
        return Ok(());
    }
    Err(format!("expected\n  {}\nprinted\n  {}", expected.join("\n  "), printed.join("\n  ")))
}

/// The lines the header promises.
fn expected_lines<'text>(name: &str, text: &'text str) -> Result<Vec<&'text str>, String> {
    let lines = text.lines().count();
    if lines > LINES_MAX {
        return Err(format!("{lines} lines, {LINES_MAX} at most"));
    }
    if !name.starts_with(|first: char| first.is_ascii_digit()) {
        return Err("its name does not begin with its number in the learning order".to_owned());
    }
    let command = format!("//! Run: cargo run --example {name}");
    if !text.lines().any(|line| line == command) {
        return Err(format!("its header lacks the line `{command}`"));
    }
    let mut header = text.lines().take_while(|line| line.starts_with("//!"));
    if !header.any(|line| line == "//! Expect:") {
        return Err("its header lacks the line `//! Expect:`".to_owned());
    }
    let promised = header.map_while(|line| line.strip_prefix("//! |"));
    Ok(promised.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect())
}

/// What the example prints to standard output, run in an empty directory of its own.
fn run(name: &str) -> Result<String, String> {
    let program = program(name)?;
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join("examples").join(name);
    if scratch.exists() {
        fs::remove_dir_all(&scratch).map_err(|error| error.to_string())?;
    }
    fs::create_dir_all(&scratch).map_err(|error| error.to_string())?;
    let mut child = Command::new(program)
        .current_dir(scratch)
        .env_remove("ESTAFETTE_URL")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;

    // Reading ends when the program does; the channel puts a limit on waiting for that.
    let mut stdout = child.stdout.take().ok_or("its output was not piped")?;
    let (sender, receiver) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let mut printed = String::new();
        let outcome = stdout.read_to_string(&mut printed).map(|_| printed);
        // Nobody listens any more when the time was up.
        drop(sender.send(outcome));
    });
    let Ok(printed) = receiver.recv_timeout(RUN_TIME_MAX) else {
        child.kill().map_err(|error| error.to_string())?;
        return Err(format!("still running after {RUN_TIME_MAX:?}"));
    };
    let status = child.wait().map_err(|error| error.to_string())?;
    let printed = printed.map_err(|error| error.to_string())?;
    if status.success() { Ok(printed) } else { Err(format!("{status}; it printed\n{printed}")) }
}

/// The built example: cargo puts tests into `<profile>/deps` and examples into `<profile>/examples`.
fn program(name: &str) -> Result<PathBuf, String> {
    let test = std::env::current_exe().map_err(|error| error.to_string())?;
    let profile = test.parent().and_then(Path::parent).ok_or("this test is not in a target directory")?;
    let program = profile.join("examples").join(name).with_extension(std::env::consts::EXE_EXTENSION);
    if program.is_file() {
        Ok(program)
    } else {
        Err("not built; run: cargo build --package estafette --examples".to_owned())
    }
}

/// Whether `text` is `pattern`, with any text in the place of each `…`.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('…');
    let Some(mut rest) = parts.next().and_then(|start| text.strip_prefix(start)) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(end) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(end)
}

#[test]
fn an_ellipsis_matches_any_text() {
    for (pattern, text) in [("a", "a"), ("a … c", "a b c"), ("…", ""), ("a…b…c", "a1b2b3c"), ("", "")]
    {
        assert!(matches(pattern, text), "{pattern} / {text}");
    }
    for (pattern, text) in [("a", "ab"), ("a…b", "a"), ("ab…b", "ab"), ("…a…", "b"), ("", "a")] {
        assert!(!matches(pattern, text), "{pattern} / {text}");
    }
}

#[test]
fn a_header_without_a_promise_is_refused() {
    let header = "//! Hello.\n//!\n//! Run: cargo run --example 01_hello\n//! Expect:\n//! | a\n//! |\n//! |  b\n//!\n//! | c";
    assert_eq!(expected_lines("01_hello", header), Ok(vec!["a", "", " b"]));
    assert!(expected_lines("02_hello", header).is_err());
    assert!(expected_lines("01_hello", "//! Run: cargo run --example 01_hello\n").is_err());
}

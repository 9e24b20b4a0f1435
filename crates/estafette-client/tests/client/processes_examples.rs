//! Every example prints what its header promises.

use std::{path::Path, process::Command};

#[test]
fn every_example_prints_what_its_header_promises() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut seen = 0;
    for entry in folder.read_dir().unwrap() {
        let source = entry.unwrap().path();
        if source.is_dir() {
            continue;
        }
        let text = std::fs::read_to_string(&source).unwrap();
        assert!(text.lines().count() <= 80, "{}: at most 80 lines", source.display());
        let header = text.lines().take_while(|line| line.starts_with("//!"));
        let promised = header.filter_map(|line| line.strip_prefix("//! | ")).collect::<Vec<_>>();
        assert!(!promised.is_empty(), "{} promises nothing", source.display());
        // Tests are built into `<profile>/deps`, examples into `<profile>/examples`.
        let test = std::env::current_exe().unwrap();
        let examples = test.parent().unwrap().parent().unwrap().join("examples");
        let output = Command::new(examples.join(source.file_stem().unwrap())).output().unwrap();
        assert!(output.status.success(), "{}: {}", source.display(), String::from_utf8_lossy(&output.stderr));
        let printed = String::from_utf8(output.stdout).unwrap();
        assert_eq!(printed.lines().collect::<Vec<_>>(), promised, "{}", source.display());
        seen += 1;
    }
    assert_eq!(seen, 3);
}

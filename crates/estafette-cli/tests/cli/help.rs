use crate::vocabulary::{program, run};

fn help(path: &[&str]) -> String {
    run(program(&[path, &["--help"]].concat()), b"").ok()
}

/// The commands listed in a help text.
fn commands(help: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let listed = lines.take_while(|line| !line.is_empty()).filter(|line| !line.starts_with("    "));
    listed.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[test]
fn every_command_has_examples() {
    let mut paths: Vec<Vec<String>> = vec![Vec::new()];
    let mut seen = 0;
    while let Some(path) = paths.pop() {
        let words: Vec<&str> = path.iter().map(String::as_str).collect();
        let help = help(&words);
        let (_, examples) =
            help.split_once("\nEXAMPLES\n").unwrap_or_else(|| panic!("{path:?} has no examples"));
        let start = ["estafette", &words.join(" ")].join(" ");
        assert!(examples.contains(start.trim()), "the examples of {path:?} do not show it");
        assert!(help.lines().all(|line| line.chars().count() <= 130), "{path:?}");
        seen += 1;
        paths.extend(commands(&help).into_iter().map(|name| [path.clone(), vec![name]].concat()));
    }
    assert!(seen >= 17, "only {seen} commands were found");
}

#[test]
fn the_exit_statuses_are_explained() {
    let help = help(&[]);
    assert!(help.contains("EXIT STATUS"));
    assert!(help.contains("ESTAFETTE_URL"));
}

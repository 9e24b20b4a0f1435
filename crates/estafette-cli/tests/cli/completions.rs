use crate::vocabulary::{program, run};

#[test]
fn there_are_completions_for_each_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(program(&["completions", shell]), b"").ok();
        assert!(script.contains("estafette") && script.contains("until-empty"), "{shell}");
    }
}

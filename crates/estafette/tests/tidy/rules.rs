//! The rules for source files.

use std::fmt;

use crate::functions::{block_end, functions};
use crate::project::Source;
use crate::tokens::{Token, tokens};

const FILE_LINES_MAX: usize = 400;
const FUNCTION_LINES_MAX: usize = 70;

/// A house rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// A file says one thing.
    FileLength,
    /// A function fits on a screen.
    FunctionLength,
    /// Every source file opens with what it holds and why.
    ModuleDoc,
    /// Only programs print, exit and read the environment; libraries return values and emit events.
    ProgramsOnly,
    /// Every queue is bounded.
    Unbounded,
    /// Nothing unfinished is kept.
    Unfinished,
    /// An awaited error is handled or passed on, not turned into `None`.
    DiscardedError,
    /// The core does no I/O and knows no runtime.
    PureCore,
    /// Every crate inherits the workspace's lints.
    InheritedLints,
    /// Dependencies point one way.
    DependencyArrow,
}

/// One place where a rule is broken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// The file, from the root of the workspace.
    pub(crate) file: String,
    /// The line, from 1.
    pub(crate) line: usize,
    /// The rule.
    pub(crate) rule: Rule,
    /// What was found there.
    pub(crate) what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, rule, what } = self;
        write!(formatter, "{file}:{line}: {what} ({rule:?})")
    }
}

/// What must not be called, where, under which rule.
struct Forbidden {
    rule: Rule,
    applies_to: fn(file: &str) -> bool,
    calls: &'static [&'static str],
}

const FORBIDDEN: &[Forbidden] = &[
    Forbidden {
        rule: Rule::ProgramsOnly,
        applies_to: is_library,
        calls: &[
            "print!",
            "println!",
            "eprint!",
            "eprintln!",
            "env::var",
            "env::var_os",
            "env::vars",
            "env::vars_os",
            "process::exit",
            "process::abort",
        ],
    },
    Forbidden {
        rule: Rule::Unbounded,
        applies_to: everywhere,
        calls: &["unbounded_channel", "UnboundedSender", "UnboundedReceiver", "mpsc::unbounded"],
    },
    Forbidden { rule: Rule::Unfinished, applies_to: everywhere, calls: &["todo!", "unimplemented!"] },
    Forbidden { rule: Rule::DiscardedError, applies_to: everywhere, calls: &[".await.ok()"] },
    Forbidden {
        rule: Rule::PureCore,
        applies_to: is_core,
        calls: &["std::fs", "std::net", "std::process", "std::thread", "std::env", "tokio::"],
    },
];

/// Everything one file breaks.
pub(crate) fn check_source(source: &Source) -> Vec<Finding> {
    let Source { file, text } = source;
    let all = tokens(text);
    let mut broken = Vec::new();

    let lines = text.lines().count();
    if lines > FILE_LINES_MAX {
        broken.push((1, Rule::FileLength, format!("{lines} lines, {FILE_LINES_MAX} at most")));
    }
    for function in functions(&all).into_iter().filter(|function| function.length > FUNCTION_LINES_MAX) {
        let what = format!("{} has {} lines, {FUNCTION_LINES_MAX} at most", function.name, function.length);
        broken.push((function.line, Rule::FunctionLength, what));
    }
    if needs_module_doc(file) && !text.starts_with("//!") {
        broken.push((1, Rule::ModuleDoc, "does not begin with a module doc".to_owned()));
    }
    broken.extend(forbidden_calls(file, &all));

    broken.into_iter().map(|(line, rule, what)| Finding { file: file.clone(), line, rule, what }).collect()
}

fn forbidden_calls(file: &str, all: &[Token]) -> Vec<(usize, Rule, String)> {
    let outside_tests = without_test_modules(all);
    let mut broken = Vec::new();
    for forbidden in FORBIDDEN.iter().filter(|forbidden| (forbidden.applies_to)(file)) {
        let searched = if forbidden.rule == Rule::ProgramsOnly { &outside_tests } else { all };
        for call in forbidden.calls {
            let lines = occurrences(searched, call);
            broken.extend(lines.map(|line| (line, forbidden.rule, format!("`{call}`"))));
        }
    }
    broken
}

/// The lines on which the words and signs of `call` follow each other, however they are spaced.
fn occurrences(searched: &[Token], call: &str) -> impl Iterator<Item = usize> {
    let call = tokens(call);
    let starts = searched
        .windows(call.len())
        .filter(move |window| window.iter().zip(&call).all(|(found, wanted)| found.text == wanted.text));
    starts.map(|window| window[0].line)
}

/// The tokens without the items behind `#[cfg(test)]`.
fn without_test_modules(all: &[Token]) -> Vec<Token> {
    let attribute = tokens("#[cfg(test)]");
    let mut kept = Vec::new();
    let mut rest = all;
    while let Some(token) = rest.first() {
        let is_test = rest.len() >= attribute.len()
            && rest.iter().zip(&attribute).all(|(found, wanted)| found.text == wanted.text);
        if is_test {
            rest = after_item(&rest[attribute.len()..]);
        } else {
            kept.push(token.clone());
            rest = &rest[1..];
        }
    }
    kept
}

/// What follows the item that `item` begins with: behind its block or its `;`.
fn after_item(item: &[Token]) -> &[Token] {
    let Some(end) = item.iter().position(|token| token.text == "{" || token.text == ";") else { return &[] };
    if item[end].text == ";" {
        return &item[end + 1..];
    }
    let block = &item[end..];
    let Some(last) = block_end(block) else { return &[] };
    let length = block.iter().take_while(|token| !std::ptr::eq(*token, last)).count();
    &block[length + 1..]
}

fn everywhere(_file: &str) -> bool {
    true
}

fn is_core(file: &str) -> bool {
    file.starts_with("crates/estafette-core/src/")
}

/// A library's own code: not a program's, not a test's, an example's or a benchmark's.
fn is_library(file: &str) -> bool {
    let programs = [
        "crates/estafette-cli/",
        "crates/estafette-bench/",
        "crates/estafette-conformance/src/bin/",
        "crates/estafette-conformance/src/main.rs",
    ];
    file.contains("/src/") && !is_test(file) && !programs.iter().any(|program| file.starts_with(program))
}

/// A test of its own, or the tests of a module in a file of theirs.
fn is_test(file: &str) -> bool {
    file.contains("/tests/") || file.ends_with("/tests.rs")
}

fn needs_module_doc(file: &str) -> bool {
    !is_test(file) && (file.contains("/src/") || file.contains("/examples/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(file: &str, text: &str) -> Vec<Rule> {
        let source = Source { file: file.to_owned(), text: text.to_owned() };
        check_source(&source).into_iter().map(|finding| finding.rule).collect()
    }

    const LIBRARY: &str = "crates/estafette-memory/src/lib.rs";

    #[test]
    fn a_long_file_and_a_long_function_are_found() {
        let lines = "\n".repeat(FILE_LINES_MAX);
        assert_eq!(rules(LIBRARY, &format!("//! Doc.{lines}")), []);
        assert_eq!(rules(LIBRARY, &format!("//! Doc.{lines}//")), [Rule::FileLength]);
        let lines = "\n".repeat(FUNCTION_LINES_MAX - 1);
        assert_eq!(rules(LIBRARY, &format!("//! Doc.\nfn long() {{{lines}}}")), []);
        assert_eq!(rules(LIBRARY, &format!("//! Doc.\nfn long() {{\n{lines}}}")), [Rule::FunctionLength]);
    }

    #[test]
    fn a_missing_module_doc_is_found() {
        assert_eq!(rules(LIBRARY, "fn f() {}"), [Rule::ModuleDoc]);
        assert_eq!(rules("crates/estafette-memory/tests/t.rs", "fn f() {}"), []);
    }

    #[test]
    fn only_programs_and_tests_print_exit_and_read_the_environment() {
        let text = "//! Doc.\nfn f() { eprintln!(\"x\"); std :: env::var(\"X\"); }";
        assert_eq!(rules(LIBRARY, text), [Rule::ProgramsOnly, Rule::ProgramsOnly]);
        assert_eq!(rules("crates/estafette-cli/src/main.rs", text), []);
        assert_eq!(rules("crates/estafette-memory/tests/t.rs", text), []);
        assert_eq!(rules(LIBRARY, "//! Doc.\n#[cfg(test)]\nmod tests { fn f() { println!(); } }"), []);
        assert_eq!(
            rules(LIBRARY, "//! Doc.\n#[cfg(test)]\nmod tests;\nfn f() { println!(); }"),
            [Rule::ProgramsOnly]
        );
        assert_eq!(rules(LIBRARY, "//! println!\nconst A: &str = \"println!()\"; // println!"), []);
    }

    #[test]
    fn unbounded_queues_unfinished_code_and_discarded_errors_are_found_even_in_tests() {
        let file = "crates/estafette-memory/tests/t.rs";
        assert_eq!(rules(file, "fn f() { unbounded_channel(); }"), [Rule::Unbounded]);
        assert_eq!(rules(file, "fn f() { todo!() }"), [Rule::Unfinished]);
        assert_eq!(rules(file, "fn f() { g().await\n    .ok(); }"), [Rule::DiscardedError]);
    }

    #[test]
    fn input_in_the_core_is_found() {
        assert_eq!(rules("crates/estafette-core/src/lib.rs", "//! Doc.\nuse std::fs;"), [Rule::PureCore]);
    }
}

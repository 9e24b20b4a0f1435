//! The rules for `Cargo.toml`: the dependency arrows between our crates, what the core may not use, and the
//! workspace's lints. Reads the few forms of TOML that manifests here are written in.

use crate::rules::{Finding, Rule};

/// Where a crate's arrows may point.
struct Arrows {
    /// The crate.
    name: &'static str,
    /// Ours that it may depend on.
    dependencies: &'static [&'static str],
    /// Ours that only its tests may use, besides those.
    dev_dependencies: &'static [&'static str],
}

/// Stands for every crate of ours.
const ANY: &[&str] = &["*"];

/// What a crate without a row may do: so a new transport needs no line here.
const TRANSPORT: Arrows = Arrows {
    name: "estafette-*",
    dependencies: &["estafette-core"],
    dev_dependencies: &["estafette-conformance", "estafette-macros"],
};

/// The crates that are not like a transport, in the order of the architecture.
const ARROWS: &[Arrows] = &[
    Arrows { name: "estafette-core", dependencies: &[], dev_dependencies: &["estafette-macros"] },
    // The derive's tests expand it where users do: through the façade.
    Arrows {
        name: "estafette-macros",
        dependencies: &[],
        dev_dependencies: &["estafette", "estafette-core"],
    },
    Arrows {
        name: "estafette-conformance",
        dependencies: &["estafette-core"],
        dev_dependencies: &["estafette-memory", "estafette-macros"],
    },
    Arrows {
        name: "estafette-consumer",
        dependencies: &["estafette-core"],
        dev_dependencies: &["estafette-memory", "estafette-macros"],
    },
    Arrows {
        name: "estafette-outbox",
        dependencies: &["estafette-core"],
        dev_dependencies: &["estafette-amqp", "estafette-memory"],
    },
    // The client's tests and examples talk to a gateway.
    Arrows {
        name: "estafette-client",
        dependencies: &["estafette-core"],
        dev_dependencies: &["estafette-gateway"],
    },
    Arrows { name: "estafette", dependencies: ANY, dev_dependencies: ANY },
    Arrows {
        name: "estafette-cli",
        dependencies: &["estafette", "estafette-conformance"],
        dev_dependencies: &[],
    },
    Arrows { name: "estafette-bench", dependencies: ANY, dev_dependencies: ANY },
];

/// What even `ANY` does not reach: nothing points back at the programs, or from the façade at the suite.
const NEVER: &[(&str, &str)] = &[
    ("estafette", "estafette-cli"),
    ("estafette", "estafette-bench"),
    ("estafette", "estafette-conformance"),
    ("estafette-bench", "estafette-cli"),
];

/// Runtimes, system interfaces and engines' clients: what the core names none of.
const NOT_IN_CORE: &[&str] = &[
    "async-nats",
    "async-std",
    "futures-util",
    "hyper",
    "inotify",
    "lapin",
    "libc",
    "mio",
    "mlua",
    "nix",
    "redis",
    "reqwest",
    "rusqlite",
    "rustix",
    "smol",
    "sqlx",
    "tempfile",
    "tokio",
    "tokio-util",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// For the crate itself or its build script.
    Normal,
    /// For its tests, examples and benchmarks.
    Dev,
}

#[derive(Debug, PartialEq, Eq)]
struct Dependency {
    name: String,
    kind: Kind,
    line: usize,
}

/// Everything the manifest of the crate `name` breaks.
pub(crate) fn check_manifest(name: &str, text: &str) -> Vec<Finding> {
    let finding = |line, rule, what| Finding { file: format!("crates/{name}/Cargo.toml"), line, rule, what };
    let mut findings = Vec::new();
    if !inherits_lints(text) {
        findings.push(finding(1, Rule::InheritedLints, "has no `[lints] workspace = true`".to_owned()));
    }
    for dependency in dependencies(text) {
        if is_ours(&dependency.name) && !may_depend(name, &dependency) {
            let what = format!("{name} must not depend on {} ({:?})", dependency.name, dependency.kind);
            findings.push(finding(dependency.line, Rule::DependencyArrow, what));
        }
        let is_core = name == "estafette-core" && dependency.kind == Kind::Normal;
        if is_core && NOT_IN_CORE.contains(&dependency.name.as_str()) {
            let what = format!("the core knows no runtime and does no I/O: {}", dependency.name);
            findings.push(finding(dependency.line, Rule::PureCore, what));
        }
    }
    findings
}

fn is_ours(name: &str) -> bool {
    name == "estafette" || name.starts_with("estafette-")
}

fn may_depend(name: &str, dependency: &Dependency) -> bool {
    let arrows = ARROWS.iter().find(|arrows| arrows.name == name).unwrap_or(&TRANSPORT);
    let target = dependency.name.as_str();
    let holds = |allowed: &[&str]| allowed == ANY || allowed.contains(&target);
    let is_test = dependency.kind == Kind::Dev;
    if !is_test && NEVER.contains(&(name, target)) {
        return false;
    }
    // Itself with more features is how a crate's plain `cargo test` tests all of it.
    holds(arrows.dependencies) || (is_test && (target == name || holds(arrows.dev_dependencies)))
}

fn inherits_lints(text: &str) -> bool {
    let mut section = "";
    text.lines().map(str::trim).any(|line| {
        if line.starts_with('[') {
            section = line;
        }
        let compact: String = line.chars().filter(|character| !character.is_whitespace()).collect();
        (section == "[lints]" && compact == "workspace=true") || compact == "lints.workspace=true"
    })
}

/// The dependencies a manifest names, under the names of their packages.
fn dependencies(text: &str) -> Vec<Dependency> {
    let mut found = Vec::new();
    let mut section = None;
    for (at, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if let Some(header) = line.strip_prefix('[') {
            let (kind, name) = section_of(header.trim_end_matches(']'));
            section = kind;
            // `[dependencies.name]` names one in its header; its keys are not dependencies.
            if let (Some(kind), Some(name)) = (kind, name) {
                found.push(Dependency { name, kind, line: at + 1 });
                section = None;
            }
        } else if let (Some(kind), Some((key, value))) = (section, line.split_once('=')) {
            found.push(Dependency { name: package_name(key, value), kind, line: at + 1 });
        }
    }
    found
}

/// What a section's header says: the kind of dependencies it lists, and the one it names.
fn section_of(header: &str) -> (Option<Kind>, Option<String>) {
    // `target.'cfg(unix)'.dependencies`: what stands behind the target counts.
    let header = header.rsplit_once("'.").map_or(header, |(_, rest)| rest);
    let (table, name) = header.split_once('.').map_or((header, None), |(table, name)| (table, Some(name)));
    let kind = match table {
        "dependencies" | "build-dependencies" => Some(Kind::Normal),
        "dev-dependencies" => Some(Kind::Dev),
        _ => None,
    };
    (kind, name.map(|name| name.trim_matches('"').to_owned()))
}

/// `key` without `.workspace`, or the package a renamed dependency stands for.
fn package_name(key: &str, value: &str) -> String {
    let renamed = value.split_once("package").and_then(|(_, rest)| rest.split('"').nth(1));
    let key = key.trim().split('.').next().unwrap_or_default().trim_matches('"');
    renamed.unwrap_or(key).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINTS: &str = "[lints]\nworkspace = true\n";

    fn rules(name: &str, text: &str) -> Vec<Rule> {
        let text = format!("{LINTS}{text}");
        check_manifest(name, &text).into_iter().map(|finding| finding.rule).collect()
    }

    #[test]
    fn missing_lints_are_found() {
        assert_eq!(
            check_manifest("estafette", "[package]\nname = \"estafette\"\n")[0].rule,
            Rule::InheritedLints
        );
        assert_eq!(rules("estafette", ""), []);
    }

    #[test]
    fn a_transport_depends_on_the_core_only() {
        assert_eq!(rules("estafette-new", "[dependencies]\nestafette-core.workspace = true\n"), []);
        let arrow = [Rule::DependencyArrow];
        assert_eq!(rules("estafette-new", "[dependencies]\nestafette-file.workspace = true\n"), arrow);
        assert_eq!(rules("estafette-new", "[dependencies.estafette-file]\nworkspace = true\n"), arrow);
        assert_eq!(rules("estafette-new", "[dependencies]\nf = { package = \"estafette-file\" }\n"), arrow);
        assert_eq!(rules("estafette-new", "[target.'cfg(unix)'.dependencies]\nestafette = \"1\"\n"), arrow);
    }

    #[test]
    fn the_suite_is_for_tests_of_transports() {
        assert_eq!(
            rules("estafette-new", "[dev-dependencies]\nestafette-conformance.workspace = true\n"),
            []
        );
        let text = "[dependencies]\nestafette-conformance.workspace = true\n";
        assert_eq!(rules("estafette-new", text), [Rule::DependencyArrow]);
        assert_eq!(rules("estafette", text), [Rule::DependencyArrow]);
    }

    #[test]
    fn the_core_takes_no_runtime() {
        assert_eq!(rules("estafette-core", "[dependencies]\ntokio.workspace = true\n"), [Rule::PureCore]);
        assert_eq!(rules("estafette-core", "[dev-dependencies]\ntokio.workspace = true\n"), []);
        assert_eq!(rules("estafette-core", "[dependencies] # none\n# tokio = \"1\"\n"), []);
    }
}

//! The files of the workspace: every Rust source and every crate's manifest under `crates/`.

use std::fs;
use std::path::{Path, PathBuf};

/// A Rust file of the workspace.
pub(crate) struct Source {
    /// Its path from the root of the workspace, with `/` between names.
    pub(crate) file: String,
    /// What it says.
    pub(crate) text: String,
}

/// A crate's `Cargo.toml`.
pub(crate) struct Manifest {
    /// The crate's name, which is its directory's.
    pub(crate) name: String,
    /// What it says.
    pub(crate) text: String,
}

/// The root of the workspace: two folders above this crate.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace exists")
}

/// Every `.rs` file below `crates/`, sorted.
pub(crate) fn sources() -> Vec<Source> {
    let root = root();
    let mut folders = vec![root.join("crates")];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for path in entries(&folder) {
            // A build directory of its own, as trybuild's or a fuzzer's, holds generated code.
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources.push(Source { file: relative(&root, &path), text: read(&path) });
            }
        }
    }
    sources.sort_by(|left, right| left.file.cmp(&right.file));
    sources
}

/// Every crate's manifest, sorted by the crate's name.
pub(crate) fn manifests() -> Vec<Manifest> {
    let mut manifests: Vec<Manifest> = entries(&root().join("crates"))
        .into_iter()
        .filter(|folder| folder.join("Cargo.toml").is_file())
        .map(|folder| Manifest { name: file_name(&folder), text: read(&folder.join("Cargo.toml")) })
        .collect();
    manifests.sort_by(|left, right| left.name.cmp(&right.name));
    manifests
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let listing = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    listing.map(|entry| entry.expect("a directory lists its entries").path()).collect()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn relative(root: &Path, path: &Path) -> String {
    let inside = path.strip_prefix(root).expect("found below the root");
    inside.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

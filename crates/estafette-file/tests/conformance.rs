//! The contract of every transport, on drop-files.

estafette_conformance::suite!(estafette_file::connect, |directory| format!("file:{}", directory.display()));

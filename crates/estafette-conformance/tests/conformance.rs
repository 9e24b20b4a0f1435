//! The suite on the transport that is its reference.

estafette_conformance::suite!(estafette_memory::connect, |_directory| "memory:".to_owned());

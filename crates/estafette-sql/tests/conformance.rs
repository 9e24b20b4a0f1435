//! The contract, kept.

estafette_conformance::suite!(estafette_sql::connect, |directory| format!(
    "sqlite:{}/mail.db",
    directory.display()
));

//! `docs/guarantees.md` says what the transports promise and show. It is generated here, from the conformance suite's
//! results, and must not be stale: `ESTAFETTE_UPDATE=1 cargo nextest run -p estafette --features sqlite --test guarantees`.
#![cfg(all(feature = "file", feature = "sqlite"))]

/// The suite starts this program again as its other processes.
mod processes {
    use std::{path::Path, sync::Arc};

    use estafette::{Result, Transport, TransportUrl};
    use estafette_conformance::{Options, Subject, guarantees_markdown, run, testing};

    async fn connect(url: TransportUrl) -> Result<Arc<dyn Transport>> {
        estafette::connect(&url.to_string()).await
    }

    #[test]
    #[ignore = "started by the suite"]
    fn conformance_agent() {
        testing::agent(connect);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_page_of_guarantees_is_what_the_suite_found() {
        let scratch = tempfile::tempdir().unwrap();
        let place = |name: &str| scratch.path().join(name).to_str().unwrap().to_owned();
        let urls = [
            ("memory", "memory:".to_owned()),
            ("file", format!("file:{}", place("mail"))),
            ("sqlite", format!("sqlite:{}", place("mail.db"))),
        ];
        let mut found = Vec::new();
        for (name, url) in urls {
            let subject = Subject::new(connect, url).with_agent(testing::this_test_program(module_path!()));
            let guarantees = subject.connect().await.unwrap().guarantees();
            let report = run(subject, Options::default()).await.unwrap();
            assert!(report.passed(), "{name}:\n{}", report.to_table());
            found.push((name, guarantees, report));
        }
        let page = guarantees_markdown(&found);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guarantees.md");
        if std::env::var_os("ESTAFETTE_UPDATE").is_some() {
            std::fs::write(&path, &page).unwrap();
        }
        let stored = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(page, stored, "docs/guarantees.md is stale; see the head of this file");
    }
}

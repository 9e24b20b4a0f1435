//! The nodes a backend may connect to, as discovery tells them.

use std::sync::{Arc, PoisonError, RwLock};

use serde_json::json;

/// A node that backends can reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub id: String,
    /// `host:port` of its management API, as seen by backends.
    pub address: String,
}

/// The other nodes of the cluster; this one is always there. Clones are the same list.
#[derive(Debug, Clone, Default)]
pub struct Nodes {
    others: Arc<RwLock<Vec<Node>>>,
}

impl Nodes {
    /// Replaces the list of the others.
    pub fn set_others(&self, others: Vec<Node>) {
        *self.others.write().unwrap_or_else(PoisonError::into_inner) = others;
    }

    /// The answer to `GET /v1/nodes`: each node with the keys of every published client.
    pub(crate) fn answer(&self, own: &Node) -> String {
        let others = self.others.read().unwrap_or_else(PoisonError::into_inner);
        let nodes: Vec<_> = std::iter::once(own).chain(others.iter()).map(entry).collect();
        json!({ "nodes": nodes }).to_string()
    }
}

fn entry(node: &Node) -> serde_json::Value {
    let (host, port) = node.address.rsplit_once(':').unwrap_or((&node.address, ""));
    let port: u16 = port.parse().unwrap_or_default();
    json!({ "id": node.id, "ip": host, "port": port, "host": node.address, "api_server": node.address })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_published_client_finds_its_keys() {
        let nodes = Nodes::default();
        nodes.set_others(vec![Node { id: "n2".into(), address: "b.example:7000".into() }]);
        let own = Node { id: "n1".into(), address: "127.0.0.1:6789".into() };
        let answer: serde_json::Value = serde_json::from_str(&nodes.answer(&own)).unwrap();
        assert_eq!(
            answer,
            json!({"nodes": [
                {"id": "n1", "ip": "127.0.0.1", "port": 6789, "host": "127.0.0.1:6789", "api_server": "127.0.0.1:6789"},
                {"id": "n2", "ip": "b.example", "port": 7000, "host": "b.example:7000", "api_server": "b.example:7000"},
            ]})
        );
    }
}

//! What `/metrics` says, in Prometheus' text format.
//!
//! Every number has our name; those that the reference counts as well have its name too, so that existing dashboards go
//! on. Ours are the sums over protocols. It has no histogram of send times: a send here is a write to memory.

use std::fmt::{Display, Write as _};

use crate::mesh::Hub;

/// What the management API itself counts.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ApiStats {
    pub(crate) sessions: u64,
    pub(crate) requests: u64,
}

/// A text that is being written.
#[derive(Default)]
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail.
        let _infallible = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (at, (label, text)) in labels.iter().enumerate() {
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _infallible = write!(self.0, "{}{label}=\"{text}\"", if at == 0 { '{' } else { ',' });
        }
        let _infallible = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, "gauge", help);
        self.line(name, &[], value);
    }

    fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, "counter", help);
        self.line(name, &[], value);
    }
}

/// The page for this hub.
pub(crate) fn page(hub: &Hub, api: ApiStats) -> String {
    let mut page = Page::default();
    connections(&mut page, hub);
    queues(&mut page, hub);
    page.gauge("estafette_gateway_api_sessions", "Backends connected by WebSocket.", api.sessions);
    page.counter("estafette_gateway_api_requests_total", "Requests of backends.", api.requests);
    page.0
}

fn connections(page: &mut Page, hub: &Hub) {
    let stats = hub.stats();
    page.gauge("estafette_gateway_connections", "Connections open.", stats.connections);
    page.gauge("estafette_gateway_channels", "Channels with a subscriber, per core.", stats.channels);
    page.gauge("estafette_gateway_subscriptions", "Subscriptions.", stats.subscriptions);
    let counters = [
        ("accepted_total", "Connections accepted.", stats.accepted),
        ("handshakes_total", "WebSocket handshakes done.", stats.handshakes),
        ("messages_received_total", "Messages received.", stats.messages_in),
        ("messages_sent_total", "Messages sent, one per connection.", stats.messages_out),
        ("bytes_received_total", "Bytes received.", stats.bytes_in),
        ("bytes_sent_total", "Bytes sent.", stats.bytes_out),
        ("publishes_total", "Publishes, each core its own part.", stats.publishes),
        ("script_errors_total", "Callbacks that failed.", stats.script_errors),
        ("script_reloads_total", "Scripts taken anew.", stats.script_reloads),
        ("script_reload_errors_total", "Scripts not taken: they do not work.", stats.script_reload_errors),
        ("accept_errors_total", "Times that accepting failed.", stats.accept_errors),
    ];
    for (name, help, value) in counters {
        page.counter(&format!("estafette_gateway_{name}"), help, value);
    }
    let closed = "estafette_gateway_closed_total";
    page.head(closed, "counter", "Connections ended, by reason.");
    let mut slow = 0;
    for (reason, count) in stats.closed() {
        page.line(closed, &[("reason", reason.name())], count);
        if reason == crate::stats::CloseReason::SlowReader {
            slow = count;
        }
    }
    for name in ["connmix_engine_servers_clients", "connmix_center_registry_clients"] {
        page.gauge(name, "Connections open.", stats.connections);
    }
    page.counter("connmix_engine_servers_read_messages_total", "Messages received.", stats.messages_in);
    page.counter("connmix_engine_servers_send_messages_total", "Messages sent.", stats.messages_out);
    page.counter("connmix_engine_servers_send_errors_total", "Connections that did not read.", slow);
    page.gauge("connmix_center_registry_channels_total", "Channels.", stats.channels);
}

fn queues(page: &mut Page, hub: &Hub) {
    let depths = hub.queues().depths();
    page.head("estafette_gateway_queue_messages", "gauge", "Messages waiting.");
    for depth in &depths {
        page.line("estafette_gateway_queue_messages", &[("queue", &depth.name)], depth.messages);
    }
    page.head("estafette_gateway_queue_consumers", "gauge", "Consumers registered.");
    for depth in &depths {
        page.line("estafette_gateway_queue_consumers", &[("queue", &depth.name)], depth.consumers);
    }
    let totals = hub.queues().totals();
    for (name, help, value) in [
        ("pushed", "Messages taken in.", totals.pushed),
        ("refused", "Messages refused: something was full.", totals.refused),
        ("consumed", "Messages handed to consumers.", totals.consumed),
        ("returned", "Unacknowledged messages that came back.", totals.returned),
    ] {
        page.counter(&format!("estafette_gateway_queue_{name}_total"), help, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_cannot_break_out_of_its_quotes() {
        let mut page = Page::default();
        page.line("x", &[("queue", "a\"b\\c\nd"), ("e", "f")], 1);
        assert_eq!(page.0, "x{queue=\"a\\\"b\\\\c\\nd\",e=\"f\"} 1\n");
    }
}

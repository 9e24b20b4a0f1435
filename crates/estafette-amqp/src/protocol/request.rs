//! What we say to the broker: each function appends one method frame.

use super::{
    Kind,
    fields::{put_bool_field, put_text_field},
    frame::put_frame,
    writing::{put_long, put_short, put_u16, put_u32, put_u64},
};

/// What opens a connection, before any frame.
pub(crate) const GREETING: &[u8] = b"AMQP\0\0\x09\x01";

fn put_method(
    out: &mut Vec<u8>,
    channel: u16,
    (class, method): (u16, u16),
    arguments: impl FnOnce(&mut Vec<u8>),
) {
    put_frame(out, Kind::Method, channel, |out| {
        put_u16(out, class);
        put_u16(out, method);
        arguments(out);
    });
}

pub(crate) fn connection_start_ok(
    out: &mut Vec<u8>,
    connection_name: &str,
    mechanism: &str,
    response: &[u8],
) {
    put_method(out, 0, (10, 11), |out| {
        put_long(out, |out| {
            put_text_field(out, "product", "estafette");
            put_text_field(out, "version", env!("CARGO_PKG_VERSION"));
            put_text_field(out, "connection_name", connection_name);
            put_short(out, "capabilities");
            out.push(b'F');
            put_long(out, |out| {
                let capabilities = [
                    "publisher_confirms",
                    "basic.nack",
                    "connection.blocked",
                    "consumer_cancel_notify",
                    "authentication_failure_close",
                    "exchange_exchange_bindings",
                ];
                for capability in capabilities {
                    put_bool_field(out, capability, true);
                }
            });
        });
        put_short(out, mechanism);
        put_long(out, |out| out.extend_from_slice(response));
        put_short(out, "en_US");
    });
}

pub(crate) fn connection_tune_ok(out: &mut Vec<u8>, channel_max: u16, frame_max: u32, heartbeat: u16) {
    put_method(out, 0, (10, 31), |out| {
        put_u16(out, channel_max);
        put_u32(out, frame_max);
        put_u16(out, heartbeat);
    });
}

pub(crate) fn connection_open(out: &mut Vec<u8>, vhost: &str) {
    put_method(out, 0, (10, 40), |out| {
        put_short(out, vhost);
        put_short(out, "");
        out.push(0);
    });
}

fn put_close(out: &mut Vec<u8>) {
    put_u16(out, 200);
    put_short(out, "goodbye");
    put_u32(out, 0);
}

pub(crate) fn connection_close(out: &mut Vec<u8>) {
    put_method(out, 0, (10, 50), put_close);
}

pub(crate) fn connection_close_ok(out: &mut Vec<u8>) {
    put_method(out, 0, (10, 51), |_| {});
}

pub(crate) fn heartbeat(out: &mut Vec<u8>) {
    put_frame(out, Kind::Heartbeat, 0, |_| {});
}

pub(crate) fn channel_open(out: &mut Vec<u8>, channel: u16) {
    put_method(out, channel, (20, 10), |out| put_short(out, ""));
}

pub(crate) fn channel_flow_ok(out: &mut Vec<u8>, channel: u16, active: bool) {
    put_method(out, channel, (20, 21), |out| out.push(u8::from(active)));
}

pub(crate) fn channel_close(out: &mut Vec<u8>, channel: u16) {
    put_method(out, channel, (20, 40), put_close);
}

pub(crate) fn channel_close_ok(out: &mut Vec<u8>, channel: u16) {
    put_method(out, channel, (20, 41), |_| {});
}

pub(crate) fn confirm_select(out: &mut Vec<u8>, channel: u16) {
    put_method(out, channel, (85, 10), |out| out.push(0));
}

/// An exchange to declare.
pub(crate) struct DeclareExchange<'a> {
    pub(crate) name: &'a str,
    pub(crate) kind: &'a str,
    /// Only look whether it is there.
    pub(crate) passive: bool,
    pub(crate) durable: bool,
    /// The fields of its arguments.
    pub(crate) arguments: &'a [u8],
}

pub(crate) fn exchange_declare(out: &mut Vec<u8>, channel: u16, exchange: &DeclareExchange<'_>) {
    put_method(out, channel, (40, 10), |out| {
        put_u16(out, 0);
        put_short(out, exchange.name);
        put_short(out, exchange.kind);
        out.push(u8::from(exchange.passive) | u8::from(exchange.durable) << 1);
        put_long(out, |out| out.extend_from_slice(exchange.arguments));
    });
}

pub(crate) fn exchange_bind(out: &mut Vec<u8>, channel: u16, destination: &str, source: &str, key: &str) {
    put_method(out, channel, (40, 30), |out| {
        put_u16(out, 0);
        put_short(out, destination);
        put_short(out, source);
        put_short(out, key);
        out.push(0);
        put_u32(out, 0);
    });
}

/// A queue to declare.
#[derive(Clone, Copy)]
pub(crate) struct DeclareQueue<'a> {
    pub(crate) name: &'a str,
    /// Only look whether it is there.
    pub(crate) passive: bool,
    pub(crate) durable: bool,
    pub(crate) auto_delete: bool,
    /// The fields of its arguments.
    pub(crate) arguments: &'a [u8],
}

pub(crate) fn queue_declare(out: &mut Vec<u8>, channel: u16, queue: &DeclareQueue<'_>) {
    put_method(out, channel, (50, 10), |out| {
        put_u16(out, 0);
        put_short(out, queue.name);
        let exclusive = 0;
        out.push(
            u8::from(queue.passive)
                | u8::from(queue.durable) << 1
                | exclusive << 2
                | u8::from(queue.auto_delete) << 3,
        );
        put_long(out, |out| out.extend_from_slice(queue.arguments));
    });
}

pub(crate) fn queue_bind(out: &mut Vec<u8>, channel: u16, queue: &str, exchange: &str, key: &str) {
    put_method(out, channel, (50, 20), |out| {
        put_u16(out, 0);
        put_short(out, queue);
        put_short(out, exchange);
        put_short(out, key);
        out.push(0);
        put_u32(out, 0);
    });
}

pub(crate) fn queue_unbind(out: &mut Vec<u8>, channel: u16, queue: &str, exchange: &str, key: &str) {
    put_method(out, channel, (50, 50), |out| {
        put_u16(out, 0);
        put_short(out, queue);
        put_short(out, exchange);
        put_short(out, key);
        put_u32(out, 0);
    });
}

pub(crate) fn queue_purge(out: &mut Vec<u8>, channel: u16, queue: &str) {
    put_method(out, channel, (50, 30), |out| {
        put_u16(out, 0);
        put_short(out, queue);
        out.push(0);
    });
}

pub(crate) fn queue_delete(out: &mut Vec<u8>, channel: u16, queue: &str) {
    put_method(out, channel, (50, 40), |out| {
        put_u16(out, 0);
        put_short(out, queue);
        out.push(0);
    });
}

/// At most `count` unsettled deliveries for each consumer of the channel that starts from now on.
pub(crate) fn basic_qos(out: &mut Vec<u8>, channel: u16, count: u16) {
    put_method(out, channel, (60, 10), |out| {
        put_u32(out, 0);
        put_u16(out, count);
        out.push(0);
    });
}

pub(crate) fn basic_consume(out: &mut Vec<u8>, channel: u16, queue: &str, tag: &str) {
    put_method(out, channel, (60, 20), |out| {
        put_u16(out, 0);
        put_short(out, queue);
        put_short(out, tag);
        out.push(0);
        put_u32(out, 0);
    });
}

/// Ends a consumer, without waiting for an answer when `no_wait`.
pub(crate) fn basic_cancel(out: &mut Vec<u8>, channel: u16, tag: &str, no_wait: bool) {
    put_method(out, channel, (60, 30), |out| {
        put_short(out, tag);
        out.push(u8::from(no_wait));
    });
}

pub(crate) fn basic_get(out: &mut Vec<u8>, channel: u16, queue: &str) {
    put_method(out, channel, (60, 70), |out| {
        put_u16(out, 0);
        put_short(out, queue);
        out.push(0);
    });
}

/// The method of a publication; its header and body frames follow.
pub(crate) fn basic_publish(out: &mut Vec<u8>, channel: u16, exchange: &str, key: &str) {
    const MANDATORY: u8 = 1;
    put_method(out, channel, (60, 40), |out| {
        put_u16(out, 0);
        put_short(out, exchange);
        put_short(out, key);
        out.push(MANDATORY);
    });
}

pub(crate) fn basic_ack(out: &mut Vec<u8>, channel: u16, tag: u64, multiple: bool) {
    put_method(out, channel, (60, 80), |out| {
        put_u64(out, tag);
        out.push(u8::from(multiple));
    });
}

/// Puts a delivery back into its queue.
pub(crate) fn basic_requeue(out: &mut Vec<u8>, channel: u16, tag: u64, multiple: bool) {
    const REQUEUE: u8 = 1 << 1;
    put_method(out, channel, (60, 120), |out| {
        put_u64(out, tag);
        out.push(u8::from(multiple) | REQUEUE);
    });
}

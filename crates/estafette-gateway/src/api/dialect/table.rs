//! The table: every recorded request of the published clients beside what it means and the answer, byte for byte.

use proptest::prelude::*;
use serde_json::{Value, json, value::RawValue};

use super::{Code, Dialect, Fault, Operation, Outcome, answer, event, http_answer, parse, publish, send};
use crate::{
    mesh::{Call, ConnectionId, Payload, Published},
    queues::QueueMessage,
};

fn id(number: u64) -> ConnectionId {
    ConnectionId::from_number(number).unwrap()
}

/// What a request means, and its answer if all goes well.
#[track_caller]
#[allow(clippy::needless_pass_by_value, reason = "the table reads better without borrows")]
fn meets(request: &str, means: Operation, answered: &str) {
    let parsed = parse(request, Dialect::Short);
    assert_eq!(parsed.operation, Ok(means.clone()), "{request}");
    let outcome = match means {
        Operation::Ping => Outcome::Pong,
        Operation::Publish { .. } => Outcome::Published(Published { success: 9, fail: 0 }),
        _ => Outcome::Done,
    };
    assert_eq!(answer(parsed.dialect, &parsed.id, &Ok(outcome)), answered, "{request}");
}

#[track_caller]
fn refused(request: &str) {
    let parsed = parse(request, Dialect::Short);
    assert_eq!(parsed.operation.unwrap_err().code, Code::BadParameter, "{request}");
}

fn consume(queues: &[&str]) -> Operation {
    Operation::Consume { queues: queues.iter().map(ToString::to_string).collect(), acknowledging: false }
}

fn call(call: Call) -> Operation {
    Operation::Call { id: id(1_461_256_748_928_991_234), calls: vec![call] }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

fn to_channel(channel: &str, text: &str) -> Operation {
    Operation::Publish { channel: channel.into(), payload: Payload::text(text) }
}

const SHORT_DONE: &str = r#"{"E":null,"r":{"s":true},"i":2}"#;
const LONG_DONE: &str = r#"{"error":null,"result":{"success":true,"fail":0,"total":1},"id":0}"#;

#[test]
fn the_short_dialect_consumes_and_cancels() {
    meets(r#"{"m":"queue.pop","p":["foo"],"i":2}"#, consume(&["foo"]), SHORT_DONE);
    meets(r#"{"m":"queue.pop","p":{"t":["foo","bar"]},"i":2}"#, consume(&["foo", "bar"]), SHORT_DONE);
    meets(r#"{"m":"queue.pop","p":[{"t":["foo"]}],"id":2}"#, consume(&["foo"]), SHORT_DONE);
    let acknowledging = Operation::Consume { queues: names(&["foo"]), acknowledging: true };
    meets(r#"{"m":"queue.pop","p":{"t":["foo"],"ack":true},"i":2}"#, acknowledging, SHORT_DONE);
    for nothing in ["{}", "[]", "null", "[{}]"] {
        let request = format!(r#"{{"m":"queue.unpop","p":{nothing},"i":2}}"#);
        meets(&request, Operation::Cancel { queues: vec![] }, SHORT_DONE);
    }
    meets(r#"{"m":"queue.unpop","i":2}"#, Operation::Cancel { queues: vec![] }, SHORT_DONE);
    meets(r#"{"m":"queue.ack","p":[4,5],"i":2}"#, Operation::Acknowledge { tags: vec![4, 5] }, SHORT_DONE);
    meets(r#"{"m":"queue.ack","p":{"a":4},"i":2}"#, Operation::Acknowledge { tags: vec![4] }, SHORT_DONE);
}

#[test]
fn the_long_dialect_consumes_and_cancels() {
    let request = r#"{"method":"queue.consume","params":["foo","bar"],"id":0}"#;
    meets(request, consume(&["foo", "bar"]), LONG_DONE);
    let request = r#"{"method":"queue.unconsume","params":[],"id":0}"#;
    meets(request, Operation::Cancel { queues: vec![] }, LONG_DONE);
    let acknowledging = Operation::Consume { queues: names(&["foo"]), acknowledging: true };
    let request = r#"{"method":"queue.consume","params":{"queues":["foo"],"ack":true},"id":0}"#;
    meets(request, acknowledging, LONG_DONE);
}

#[test]
fn functions_of_a_connection_take_every_recorded_shape() {
    let c = "1461256748928991234";
    let value = || call(Call::SetContextValue("user_id".into(), json!(1_000)));
    for connection in [c.to_owned(), format!("\"{c}\"")] {
        let short = |f: &str, a: &str| {
            format!(r#"{{"m":"conn.call","p":{{"c":{connection},"f":"{f}","a":{a}}},"i":2}}"#)
        };
        meets(&short("set_context_value", r#"["user_id",1000]"#), value(), SHORT_DONE);
        let context = json!({"user_id": 1_000, "name": "Ж/"}).as_object().cloned().unwrap();
        let escaped = r#"[{"user_id":1000,"name":"\u0416\/"}]"#;
        meets(&short("set_context", escaped), call(Call::SetContext(context)), SHORT_DONE);
        for empty in ["[{}]", "[[]]", "[]", "{}"] {
            meets(&short("set_context", empty), call(Call::SetContext(serde_json::Map::new())), SHORT_DONE);
        }
        let channels = || names(&["a", "b"]);
        meets(&short("subscribe", r#"["a","b"]"#), call(Call::Subscribe(channels())), SHORT_DONE);
        meets(&short("unsubscribe", r#"["a","b"]"#), call(Call::Unsubscribe(channels())), SHORT_DONE);
        let nothing = Operation::Call { id: id(1_461_256_748_928_991_234), calls: vec![] };
        meets(&short("unsubscribe", "[]"), nothing, SHORT_DONE);

        let long = |f: &str| format!(r#"{{"method":"conn.call","params":{f},"id":0}}"#);
        // 1.0.3 and 1.0.4, the documents' list of one, and 1.0.0 to 1.0.2.
        for shape in [
            format!(r#"{{"client_id":{connection},"func":"set_context_value","args":["user_id",1000]}}"#),
            format!(r#"[{{"client_id":{connection},"func":"set_context_value","args":["user_id",1000]}}]"#),
            format!(
                r#"{{"client_id":{connection},"method":"set_context_value","params":{{"user_id":1000}}}}"#
            ),
        ] {
            meets(&long(&shape), value(), LONG_DONE);
        }
        let shape = format!(r#"{{"client_id":{connection},"method":"subscribe","params":["a","b"]}}"#);
        meets(&long(&shape), call(Call::Subscribe(channels())), LONG_DONE);
    }
}

#[test]
fn several_values_in_one_object_are_all_set() {
    let request = r#"{"method":"conn.call","params":{"client_id":7,"method":"set_context_value","params":{"a":1,"b":[]}},"id":0}"#;
    let calls =
        vec![Call::SetContextValue("a".into(), json!(1)), Call::SetContextValue("b".into(), json!([]))];
    meets(request, Operation::Call { id: id(7), calls }, LONG_DONE);
}

#[test]
fn sends_and_publishes_are_told_apart() {
    let to_connection = || Operation::Send { id: id(7), payload: Payload::text("{\"a\":1}") };
    meets(r#"{"m":"mesh.send","p":{"c":7,"d":"{\"a\":1}"},"i":2}"#, to_connection(), SHORT_DONE);
    let request = r#"{"method":"mesh.send","params":{"client_id":"7","data":"{\"a\":1}"},"id":0}"#;
    meets(request, to_connection(), LONG_DONE);
    let either = Operation::SendOrPublish { id: id(7), payload: Payload::text("x") };
    meets(r#"{"m":"mesh.send","p":{"c":"7","d":"x","t":"text"},"i":2}"#, either, SHORT_DONE);
    let binary = Operation::Send { id: id(7), payload: Payload::binary(vec![0, 255]) };
    meets(r#"{"m":"mesh.send","p":{"c":7,"d":"AP8=","t":"binary"},"i":2}"#, binary, SHORT_DONE);

    let published = r#"{"E":null,"r":{"s":9,"f":0},"i":2}"#;
    let channel = || to_channel("user_10001", "x");
    meets(r#"{"m":"mesh.send","p":{"c":"user_10001","d":"x"},"i":2}"#, channel(), published);
    meets(r#"{"m":"mesh.publish","p":{"c":"user_10001","d":"x"},"i":2}"#, channel(), published);
    let published = r#"{"error":null,"result":{"success":true,"fail":0,"total":9},"id":0}"#;
    for method in ["mesh.send", "mesh.publish"] {
        let request =
            format!(r#"{{"method":"{method}","params":{{"channel":"user_10001","data":"x"}},"id":0}}"#);
        meets(&request, channel(), published);
    }
}

#[test]
fn a_ping_is_answered_in_its_dialect() {
    let pong = r#"{"E":null,"r":{"s":"server.pong"},"i":2}"#;
    meets(r#"{"m":"server.ping","p":[],"i":2}"#, Operation::Ping, pong);
    let pong = r#"{"error":null,"result":{"status":"server.pong"},"id":0}"#;
    meets(r#"{"method":"server.ping","params":[],"id":0}"#, Operation::Ping, pong);
}

#[test]
fn connection_ids_are_exact_and_never_floats() {
    for (written, number) in [
        ("9007199254740993", 9_007_199_254_740_993),
        ("9223372036854775807", i64::MAX as u64),
        ("\"9223372036854775807\"", i64::MAX as u64),
    ] {
        let request = format!(r#"{{"method":"mesh.send","params":{{"client_id":{written},"data":"x"}}}}"#);
        let means = Operation::Send { id: id(number), payload: Payload::text("x") };
        assert_eq!(parse(&request, Dialect::Short).operation, Ok(means));
    }
    for written in ["0", "-1", "1.0", "1e3", "9223372036854775808", "18446744073709551616", "true", "[]"] {
        refused(&format!(r#"{{"m":"mesh.send","p":{{"c":{written},"d":"x"}},"i":2}}"#));
        refused(&format!(r#"{{"m":"conn.call","p":{{"c":{written},"f":"subscribe","a":["a"]}},"i":2}}"#));
    }
}

#[test]
fn what_breaks_the_rules_is_a_bad_parameter() {
    for params in [
        r#""m":"queue.pop","p":[]"#,
        r#""m":"queue.pop","p":[""]"#,
        r#""m":"queue.pop","p":["a\u0000b"]"#,
        r#""m":"queue.pop","p":{"t":["a"],"ack":1}"#,
        r#""m":"queue.ack","p":["a"]"#,
        r#""m":"conn.call","p":[]"#,
        r#""m":"conn.call","p":{"c":1}"#,
        r#""m":"conn.call","p":{"c":1,"f":"fly","a":[]}"#,
        r#""m":"conn.call","p":{"c":1,"f":"set_context_value","a":["k"]}"#,
        r#""m":"conn.call","p":{"c":1,"f":"set_context","a":[1]}"#,
        r#""m":"mesh.send","p":{"c":1}"#,
        r#""m":"mesh.send","p":{"c":1,"d":"%%%","t":"binary"}"#,
        r#""m":"mesh.send","p":{"c":1,"d":"x","t":"other"}"#,
        r#""m":"mesh.publish","p":{"d":"x"}"#,
        r#""m":"nothing.such""#,
    ] {
        refused(&format!("{{{params},\"i\":2}}"));
    }
    let long_name = "x".repeat(1 << 20);
    refused(&format!(r#"{{"m":"mesh.publish","p":{{"c":"{long_name}","d":"x"}},"i":2}}"#));
}

#[test]
fn errors_and_events_have_the_keys_of_their_dialect() {
    let fault = Err(Fault::new(Code::Call, "no \"such\" connection"));
    let short = r#"{"E":{"c":301,"m":"no \"such\" connection"},"i":2}"#;
    assert_eq!(answer(Dialect::Short, "2", &fault), short);
    let long = r#"{"error":{"code":301,"message":"no \"such\" connection"},"id":0}"#;
    assert_eq!(answer(Dialect::Long, "0", &fault), long);

    let message = QueueMessage {
        node: "n1".into(),
        client_id: Some(id(1_461_256_748_928_991_234)),
        queue: "foo".into(),
        data: RawValue::from_string(r#"{"frame":{"data":"hi"},"n":12345678901234567890}"#.into()).unwrap(),
    };
    let short = r#"{"e":"queue.pop","p":{"n":162,"c":"1461256748928991234","t":"foo","d":{"frame":{"data":"hi"},"n":12345678901234567890}},"i":null}"#;
    assert_eq!(event(Dialect::Short, &message, None), short);
    let long = r#"{"event":"queue.consume","result":{"client_id":"1461256748928991234","queue":"foo","data":{"frame":{"data":"hi"},"n":12345678901234567890}},"id":null}"#;
    assert_eq!(event(Dialect::Long, &message, None), long);
    let tagged: Value = serde_json::from_str(&event(Dialect::Short, &message, Some(4))).unwrap();
    assert_eq!(tagged["p"]["a"], 4);
    let tagged: Value = serde_json::from_str(&event(Dialect::Long, &message, Some(4))).unwrap();
    assert_eq!(tagged["result"]["tag"], 4);
}

#[test]
fn http_answers_have_no_id() {
    assert_eq!(http_answer(&Ok(Outcome::Done)), r#"{"E":null,"r":{"s":true}}"#);
    let published = Outcome::Published(Published { success: 9, fail: 0 });
    assert_eq!(http_answer(&Ok(published)), r#"{"E":null,"r":{"s":9,"f":0}}"#);
    let fault = Err(Fault::new(Code::Send, "gone"));
    assert_eq!(http_answer(&fault), r#"{"E":{"c":401,"m":"gone"}}"#);
    let body = json!({"c": "7", "d": "x"});
    assert!(matches!(send(Dialect::Short, body.clone()), Ok(Operation::SendOrPublish { .. })));
    assert_eq!(publish(body), Ok(to_channel("7", "x")));
}

proptest! {
    #[test]
    fn any_text_is_answered_with_one_json_object(text: String) {
        is_answered(&text);
    }

    #[test]
    fn anything_like_a_request_is_answered_with_one_json_object(
        method in "(queue|conn|mesh|server)\\.(pop|consume|unpop|ack|call|send|publish|ping)",
        params in "(\\{|\\[|\\}|\\]|\"(c|f|a|d|t|client_id|data)\":|\"\\PC{0,3}\"|[0-9]{1,20}|,|null){0,12}",
        short: bool,
    ) {
        let (m, p) = if short { ("m", "p") } else { ("method", "params") };
        is_answered(&format!(r#"{{"{m}":"{method}","{p}":{params},"i":1}}"#));
    }

    #[test]
    fn every_id_comes_through(number in 1..=i64::MAX as u64, short: bool) {
        let key = if short { r#""m":"conn.call","p":{"c""# } else { r#""method":"conn.call","params":{"client_id""# };
        let request = format!(r#"{{{key}:{number},"f":"close"}}}}"#);
        let means = Operation::Call { id: id(number), calls: vec![Call::Close] };
        prop_assert_eq!(parse(&request, Dialect::Short).operation, Ok(means));
    }
}

fn is_answered(text: &str) {
    for last in [Dialect::Short, Dialect::Long] {
        let request = parse(text, last);
        let outcome = request.operation.map(|_| Outcome::Done);
        let written = answer(request.dialect, &request.id, &outcome);
        assert!(serde_json::from_str::<Value>(&written).unwrap().is_object());
    }
}

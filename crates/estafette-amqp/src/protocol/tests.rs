use bytes::Bytes;
use proptest::prelude::*;

use super::{
    Frame, Kind, Method, Properties, Reader,
    fields::{Fields, Value, put_i32_field, put_text_field},
    frame::put_body,
    request,
};

const FRAME_MAX: usize = 131_072;

#[test]
fn a_frame_is_complete_only_with_its_end_mark() {
    let mut out = Vec::new();
    request::basic_ack(&mut out, 7, 9, true);
    for cut in 0..out.len() {
        assert!(Frame::at(&out[..cut], 0, FRAME_MAX).unwrap().is_none());
    }
    let frame = Frame::at(&out, 0, FRAME_MAX).unwrap().unwrap();
    assert_eq!((frame.kind, frame.channel, frame.end()), (Kind::Method, 7, out.len()));
    let mut reader = Reader(&out[frame.payload.0..frame.payload.1]);
    assert_eq!(Method::read(&mut reader).unwrap(), Method::BasicAck);
    assert_eq!((reader.u64().unwrap(), reader.u8().unwrap()), (9, 1));
}

#[test]
fn a_body_is_cut_into_frames() {
    let mut out = Vec::new();
    put_body(&mut out, 1, &[5; 100], 58);
    let first = Frame::at(&out, 0, 58).unwrap().unwrap();
    let second = Frame::at(&out, first.end(), 58).unwrap().unwrap();
    assert_eq!(first.payload(&Bytes::from(out.clone())).len(), 50);
    assert_eq!(second.end(), out.len());
}

proptest! {
    #[test]
    fn reading_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _frame = Frame::at(&bytes, 0, FRAME_MAX);
        if let Ok(properties) = Properties::read(&bytes) {
            properties.fields().for_each(drop);
        }
        Fields(&bytes).for_each(drop);
        super::fields::values(&bytes).for_each(drop);
        let _method = Method::read(&mut Reader(&bytes));
    }

    #[test]
    fn properties_read_back(
        texts in proptest::collection::vec(proptest::option::of("\\PC{0,40}"), 6),
        number in any::<i32>(),
        timestamp in proptest::option::of(any::<u64>()),
    ) {
        let text = |index: usize| texts[index].as_deref();
        let mut table = Vec::new();
        put_i32_field(&mut table, "span_id", number);
        let properties = Properties {
            content_type: text(0),
            headers: Some(Fields(&table)),
            delivery_mode: Some(2),
            correlation_id: text(1),
            expiration: text(2),
            message_id: text(3),
            timestamp,
            kind: text(4),
            app_id: text(5),
            ..Properties::default()
        };
        let mut out = Vec::new();
        properties.put_frame(&mut out, 1, 77, |out| put_text_field(out, "more", "ü"));
        let frame = Frame::at(&out, 0, FRAME_MAX).unwrap().unwrap();
        let payload = &out[frame.payload.0..frame.payload.1];
        prop_assert_eq!(super::properties::body_size(payload).unwrap(), 77);
        let read = Properties::read(payload).unwrap();
        prop_assert_eq!(
            [read.content_type, read.correlation_id, read.expiration, read.message_id, read.kind, read.app_id],
            [text(0), text(1), text(2), text(3), text(4), text(5)]
        );
        prop_assert_eq!((read.timestamp, read.delivery_mode), (timestamp, Some(2)));
        prop_assert_eq!(read.fields().get("span_id"), Some(Value::Int(i64::from(number))));
        let more = read.fields().text("more");
        prop_assert_eq!(more.as_deref(), Some("ü"));
    }
}

//! W3C trace context: `00-<trace id>-<span id>-<flags>`, <https://www.w3.org/TR/trace-context/>.

/// The `traceparent` for a message made now: a step of the trace of the message being handled, or of a new trace.
#[must_use]
pub fn traceparent() -> Box<str> {
    let current = crate::Context::current();
    child_of(current.as_ref().and_then(|context| context.envelope().traceparent.as_deref()))
}

/// A `traceparent` in the same trace as `parent` with a span of its own; of a new trace when `parent` is none.
pub(crate) fn child_of(parent: Option<&str>) -> Box<str> {
    let mut text = String::with_capacity(TRACEPARENT_BYTES);
    text.push_str("00-");
    match parent.and_then(trace_id) {
        Some((trace, flags)) => {
            text.push_str(trace);
            text.push('-');
            push_hexadecimal(&mut text, fastrand::u64(1..));
            text.push('-');
            text.push_str(flags);
        }
        None => {
            push_hexadecimal(&mut text, fastrand::u64(1..));
            push_hexadecimal(&mut text, fastrand::u64(..));
            text.push('-');
            push_hexadecimal(&mut text, fastrand::u64(1..));
            text.push_str("-00");
        }
    }
    text.into_boxed_str()
}

const TRACEPARENT_BYTES: usize = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".len();

/// Appends 16 digits. By hand, since every published message has one of these and formatting took a third of its time.
fn push_hexadecimal(text: &mut String, number: u64) {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    let digits: [u8; 16] = std::array::from_fn(|place| {
        let digit = (number >> (60 - place * 4)) & 0xf;
        DIGITS.get(digit as usize).copied().unwrap_or(b'0')
    });
    text.push_str(std::str::from_utf8(&digits).unwrap_or_default());
}

/// The trace id and the flags of a valid `traceparent`.
pub(crate) fn trace_id(traceparent: &str) -> Option<(&str, &str)> {
    let mut parts = traceparent.split('-');
    let (_version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hexadecimal = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f'))
    };
    let valid = hexadecimal(trace, 32) && hexadecimal(span, 16) && hexadecimal(flags, 2);
    (valid && trace.bytes().any(|byte| byte != b'0')).then_some((trace, flags))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_stays_in_the_trace_with_a_span_of_its_own() {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let child = child_of(Some(parent));
        assert_eq!(trace_id(&child), Some(("0af7651916cd43dd8448eb211c80319c", "01")));
        assert_ne!(&*child, parent);
    }

    #[test]
    fn an_invalid_parent_begins_a_new_trace() {
        for bad in
            [None, Some(""), Some("00-00000000000000000000000000000000-b7ad6b7169203331-01"), Some("x-y-z-0")]
        {
            assert!(trace_id(&child_of(bad)).is_some());
        }
    }
}

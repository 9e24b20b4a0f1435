//! Which channel a frame is for.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use estafette_core::{Error, ErrorKind, Result};

use super::{
    Incoming, Shared,
    channel::{Content, Entry, Reply},
    lock,
};
use crate::{
    error,
    protocol::{Frame, Kind, Method, Reader, method::Closed, properties::body_size, request},
};

/// The largest body taken from a broker: what RabbitMQ allows at most.
const BODY_BYTES_MAX: u64 = 512 << 20;

/// What a broker sends on a channel by itself. Called from the reading task: never blocks.
pub(crate) trait Events: Send + Sync {
    /// A message for a consumer.
    fn delivered(&self, message: Incoming) {
        drop(message);
    }

    /// A publication no queue took. Comes before its confirmation.
    fn returned(&self, content: Content, origin: &[u8]) {
        drop(content);
        let _ = origin;
    }

    /// Publications up to `tag`, or only that one, were stored, or refused.
    fn confirmed(&self, tag: u64, multiple: bool, stored: bool) {
        let _ = (tag, multiple, stored);
    }

    /// A consumer has started.
    fn consuming(&self, tag: &str) {
        let _ = tag;
    }

    /// The broker ended a consumer: its queue was deleted.
    fn cancelled(&self) {}

    /// All frames of what was read have been handled.
    fn settled_down(&self) {}

    /// The channel has ended.
    fn closed(&self, error: &Error) {
        let _ = error;
    }
}

/// The channels of a link, by number.
pub(crate) struct Channels {
    entries: Vec<Slot>,
    max: u16,
}

enum Slot {
    Free,
    Open(Arc<Entry>),
    /// Closed by us; the broker's answer is still to come.
    Closing,
}

impl Channels {
    pub(crate) fn new(max: u16) -> Self {
        // Channel 0 is the connection's own.
        Self { entries: vec![Slot::Closing], max }
    }

    pub(crate) fn add(&mut self, events: Arc<dyn Events>) -> Result<(u16, Arc<Entry>)> {
        let free = self.entries.iter().position(|slot| matches!(slot, Slot::Free));
        let index = free.unwrap_or(self.entries.len());
        let id = u16::try_from(index).unwrap_or(u16::MAX);
        if id > self.max {
            let sentence = format!("all {} channels of the connection are in use", self.max);
            return Err(Error::new(ErrorKind::Unavailable, sentence));
        }
        let entry = Arc::new(Entry::new(events));
        let slot = Slot::Open(Arc::clone(&entry));
        match self.entries.get_mut(index) {
            Some(place) => *place = slot,
            None => self.entries.push(slot),
        }
        Ok((id, entry))
    }

    fn get(&self, id: u16) -> Option<Arc<Entry>> {
        match self.entries.get(usize::from(id)) {
            Some(Slot::Open(entry)) => Some(Arc::clone(entry)),
            _ => None,
        }
    }

    /// Forgets a channel we close; its number is free again after the broker's answer.
    /// False when it has ended already; its number may be another's then.
    pub(crate) fn closing(&mut self, id: u16, entry: &Arc<Entry>) -> bool {
        let slot = self.entries.get_mut(usize::from(id));
        let is_it = |slot: &&mut Slot| matches!(&**slot, Slot::Open(open) if Arc::ptr_eq(open, entry));
        match slot.filter(is_it) {
            Some(slot) => {
                *slot = Slot::Closing;
                true
            }
            None => false,
        }
    }

    fn free(&mut self, id: u16) -> Option<Arc<Entry>> {
        let slot = self.entries.get_mut(usize::from(id)).filter(|_| id != 0)?;
        match std::mem::replace(slot, Slot::Free) {
            Slot::Open(entry) => Some(entry),
            _ => None,
        }
    }

    pub(crate) fn take_all(&mut self) -> Vec<Arc<Entry>> {
        let slots = self.entries.iter_mut().skip(1);
        slots
            .filter_map(|slot| match std::mem::replace(slot, Slot::Free) {
                Slot::Open(entry) => Some(entry),
                _ => None,
            })
            .collect()
    }
}

/// A message whose content is still coming.
struct Assembly {
    method: Method,
    /// The method's arguments.
    arguments: Bytes,
    header: Bytes,
    body: BytesMut,
    left: u64,
}

/// Hands frames to their channels.
pub(crate) struct Dispatch {
    shared: Arc<Shared>,
    /// By channel.
    assemblies: Vec<Option<Assembly>>,
    /// The channels that had frames in this chunk.
    touched: Vec<(u16, Arc<Entry>)>,
}

impl Dispatch {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, assemblies: Vec::new(), touched: Vec::new() }
    }

    pub(crate) fn frames(&mut self, chunk: &Bytes, frames: &[Frame]) -> Result<()> {
        for frame in frames {
            match frame.kind {
                Kind::Heartbeat => {}
                Kind::Method if frame.channel == 0 => self.connection_method(&frame.payload(chunk))?,
                Kind::Method => self.method(frame.channel, &frame.payload(chunk))?,
                Kind::Header => self.header(frame.channel, frame.payload(chunk))?,
                Kind::Body => self.body(frame.channel, frame.payload(chunk))?,
            }
        }
        for (_, entry) in self.touched.drain(..) {
            entry.events.settled_down();
        }
        Ok(())
    }

    fn connection_method(&mut self, payload: &[u8]) -> Result<()> {
        let mut reader = Reader(payload);
        match Method::read(&mut reader).map_err(error::malformed)? {
            Method::ConnectionClose => {
                let closed = Closed::read(&mut reader).map_err(error::malformed)?;
                self.shared.write(request::connection_close_ok);
                Err(error::closed_by_broker(&closed))
            }
            Method::ConnectionCloseOk => Err(error::closed()),
            Method::ConnectionBlocked => {
                let reason = reader.text().map_err(error::malformed)?;
                tracing::warn!(%reason, "the broker takes no publications at the moment");
                self.shared.set_blocked(true);
                Ok(())
            }
            Method::ConnectionUnblocked => {
                tracing::info!("the broker takes publications again");
                self.shared.set_blocked(false);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The channel's entry, remembered for the rest of the chunk.
    fn entry(&mut self, channel: u16) -> Option<Arc<Entry>> {
        if let Some((_, entry)) = self.touched.iter().find(|(id, _)| *id == channel) {
            return Some(Arc::clone(entry));
        }
        let entry = lock(&self.shared.channels).get(channel)?;
        self.touched.push((channel, Arc::clone(&entry)));
        Some(entry)
    }

    fn method(&mut self, channel: u16, payload: &Bytes) -> Result<()> {
        let mut reader = Reader(payload);
        let method = Method::read(&mut reader).map_err(error::malformed)?;
        match method {
            Method::BasicDeliver | Method::BasicReturn | Method::BasicGetOk => {
                let arguments = payload.slice(4..);
                let index = usize::from(channel);
                if self.assemblies.len() <= index {
                    self.assemblies.resize_with(index + 1, || None);
                }
                if let Some(place) = self.assemblies.get_mut(index) {
                    *place = Some(Assembly {
                        method,
                        arguments,
                        header: Bytes::new(),
                        body: BytesMut::new(),
                        left: 0,
                    });
                }
                return Ok(());
            }
            Method::ChannelClose => {
                let closed = Closed::read(&mut reader).map_err(error::malformed)?;
                self.shared.write(|out| request::channel_close_ok(out, channel));
                self.forget(channel, &error::closed_by_broker(&closed));
                return Ok(());
            }
            Method::ChannelCloseOk => {
                self.forget(channel, &error::closed());
                return Ok(());
            }
            _ => {}
        }
        let Some(entry) = self.entry(channel) else { return Ok(()) };
        match method {
            Method::BasicAck | Method::BasicNack => {
                let mut read = || Ok((reader.u64()?, reader.u8()?));
                let (tag, bits) = read().map_err(error::malformed)?;
                entry.events.confirmed(tag, bits & 1 != 0, method == Method::BasicAck);
            }
            // The queue answers, not the channel: this may come after the answers to later calls.
            Method::BasicConsumeOk => {
                let tag = reader.text().map_err(error::malformed)?;
                entry.events.consuming(&tag);
            }
            Method::BasicCancel => entry.events.cancelled(),
            Method::ChannelFlow => {
                let active = reader.u8().map_err(error::malformed)? != 0;
                self.shared.write(|out| request::channel_flow_ok(out, channel, active));
            }
            _ => entry.answer(Reply { arguments: payload.slice(4..), content: None }),
        }
        Ok(())
    }

    fn forget(&mut self, channel: u16, error: &Error) {
        self.touched.retain(|(id, _)| *id != channel);
        if let Some(place) = self.assemblies.get_mut(usize::from(channel)) {
            *place = None;
        }
        let freed = lock(&self.shared.channels).free(channel);
        if let Some(entry) = freed {
            entry.close(error);
        }
    }

    fn assembly(&mut self, channel: u16) -> Result<&mut Assembly> {
        let assembly = self.assemblies.get_mut(usize::from(channel)).and_then(Option::as_mut);
        assembly.ok_or_else(|| {
            Error::new(ErrorKind::Engine, "the broker sent content that belongs to no message")
        })
    }

    fn header(&mut self, channel: u16, header: Bytes) -> Result<()> {
        let left = body_size(&header).map_err(error::malformed)?;
        if left > BODY_BYTES_MAX {
            return Err(Error::new(
                ErrorKind::TooLarge,
                format!("the broker announced a body of {left} bytes"),
            ));
        }
        let assembly = self.assembly(channel)?;
        assembly.header = header;
        assembly.left = left;
        if left == 0 { self.complete(channel, Bytes::new()) } else { Ok(()) }
    }

    fn body(&mut self, channel: u16, part: Bytes) -> Result<()> {
        let assembly = self.assembly(channel)?;
        let size = part.len() as u64;
        let left = assembly
            .left
            .checked_sub(size)
            .ok_or_else(|| Error::new(ErrorKind::Engine, "the broker sent a body longer than announced"))?;
        assembly.left = left;
        if left > 0 {
            assembly.body.extend_from_slice(&part);
            return Ok(());
        }
        // The usual body fits one frame and shares its memory.
        let body = if assembly.body.is_empty() {
            part
        } else {
            assembly.body.extend_from_slice(&part);
            std::mem::take(&mut assembly.body).freeze()
        };
        self.complete(channel, body)
    }

    fn complete(&mut self, channel: u16, body: Bytes) -> Result<()> {
        let place = self.assemblies.get_mut(usize::from(channel));
        let Some(assembly) = place.and_then(Option::take) else { return Ok(()) };
        let Some(entry) = self.entry(channel) else { return Ok(()) };
        let Assembly { method, arguments, header, .. } = assembly;
        let content = Content { header, body };
        let mut reader = Reader(&arguments);
        match method {
            Method::BasicDeliver => {
                let mut read = || {
                    reader.short()?;
                    Ok((reader.u64()?, reader.u8()?))
                };
                let (tag, redelivered) = read().map_err(error::malformed)?;
                let origin = arguments.slice(arguments.len() - reader.0.len()..);
                entry.events.delivered(Incoming { tag, redelivered: redelivered != 0, origin, content });
            }
            Method::BasicReturn => {
                let mut read = || {
                    reader.u16()?;
                    reader.short()
                };
                read().map_err(error::malformed)?;
                entry.events.returned(content, reader.0);
            }
            _ => entry.answer(Reply { arguments, content: Some(content) }),
        }
        Ok(())
    }
}

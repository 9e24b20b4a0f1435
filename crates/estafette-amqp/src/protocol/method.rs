//! What the broker says, by class and method.

use super::{Malformed, Reader};

macro_rules! methods {
    ($($name:ident = $class:literal $method:literal,)*) => {
        /// A method the broker sends.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Method {
            $($name,)*
        }

        impl Method {
            /// Takes the class and the method off a method frame's payload.
            pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
                match (reader.u16()?, reader.u16()?) {
                    $(($class, $method) => Ok(Self::$name),)*
                    _ => Err(Malformed("a method that a broker does not send")),
                }
            }
        }
    };
}

methods! {
    ConnectionStart = 10 10,
    ConnectionSecure = 10 20,
    ConnectionTune = 10 30,
    ConnectionOpenOk = 10 41,
    ConnectionClose = 10 50,
    ConnectionCloseOk = 10 51,
    ConnectionBlocked = 10 60,
    ConnectionUnblocked = 10 61,
    ChannelOpenOk = 20 11,
    ChannelFlow = 20 20,
    ChannelClose = 20 40,
    ChannelCloseOk = 20 41,
    ExchangeDeclareOk = 40 11,
    ExchangeDeleteOk = 40 21,
    ExchangeBindOk = 40 31,
    QueueDeclareOk = 50 11,
    QueueBindOk = 50 21,
    QueuePurgeOk = 50 31,
    QueueDeleteOk = 50 41,
    QueueUnbindOk = 50 51,
    BasicQosOk = 60 11,
    BasicConsumeOk = 60 21,
    BasicCancel = 60 30,
    BasicCancelOk = 60 31,
    BasicReturn = 60 50,
    BasicDeliver = 60 60,
    BasicGetOk = 60 71,
    BasicGetEmpty = 60 72,
    BasicAck = 60 80,
    BasicNack = 60 120,
    ConfirmSelectOk = 85 11,
}

/// Why the broker closed a connection or a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Closed {
    pub(crate) code: u16,
    pub(crate) text: String,
}

impl Closed {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { code: reader.u16()?, text: reader.text()?.into_owned() })
    }
}

//! `#[derive(Message)]`: names a type's topic and codec.
//!
//! ```ignore
//! #[derive(Message, Serialize, Deserialize)]
//! #[message(topic = "order.created", key = "customer", subject = "id")]
//! struct OrderCreated { id: u64, customer: String }
//! ```
//!
//! The paths it writes begin with `::estafette`, the façade; `#[message(crate = "estafette_core")]` names another crate.

use proc_macro::TokenStream;
use proc_macro2::TokenStream as Tokens;
use quote::quote;
use syn::{
    Data, DeriveInput, Error, Fields, Ident, LitStr, Path, Result, parse_macro_input, spanned::Spanned,
};

/// Implements `Message` for a type.
///
/// `#[message(…)]` takes
/// - `topic = "order.created"`: required; checked when the program is compiled;
/// - `codec = "path::To::Codec"`: how bodies are written; JSON by default;
/// - `key = "field"`: the field, shown with `Display`, that is the partition key;
/// - `subject = "field"`: the field, shown with `Display`, that is the subject;
/// - `crate = "path"`: where the traits are; `::estafette` by default.
#[proc_macro_derive(Message, attributes(message))]
pub fn derive_message(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    implement(&input).unwrap_or_else(|error| error.to_compile_error()).into()
}

/// What `#[message(…)]` says.
#[derive(Default)]
struct Attributes {
    topic: Option<LitStr>,
    codec: Option<Path>,
    key: Option<Ident>,
    subject: Option<Ident>,
    root: Option<Path>,
}

fn implement(input: &DeriveInput) -> Result<Tokens> {
    let attributes = Attributes::read(input)?;
    let Some(topic) = &attributes.topic else {
        let sentence = "a message needs a topic: #[message(topic = \"order.created\")]";
        return Err(Error::new(input.ident.span(), sentence));
    };
    for field in attributes.key.iter().chain(&attributes.subject) {
        check_field(input, field)?;
    }
    let root = attributes.root.as_ref().map_or_else(|| quote!(::estafette), |path| quote!(#path));
    let codec = attributes.codec.as_ref().map_or_else(|| quote!(#root::Json), |path| quote!(#path));
    let key = method("partition_key", attributes.key.as_ref());
    let subject = method("subject", attributes.subject.as_ref());
    let name = &input.ident;
    let (generics, type_generics, bounds) = input.generics.split_for_impl();
    Ok(quote! {
        impl #generics #root::Message for #name #type_generics #bounds {
            const TOPIC: #root::Topic = #root::Topic::from_static(#topic);
            type Codec = #codec;
            #key
            #subject
        }
        // A topic that is none stops the compiler here, also when nobody uses the type.
        const _: #root::Topic = #root::Topic::from_static(#topic);
    })
}

fn method(name: &str, field: Option<&Ident>) -> Tokens {
    let Some(field) = field else { return Tokens::new() };
    let name = Ident::new(name, field.span());
    quote! {
        fn #name(&self) -> ::core::option::Option<::std::string::String> {
            ::core::option::Option::Some(::std::string::ToString::to_string(&self.#field))
        }
    }
}

impl Attributes {
    fn read(input: &DeriveInput) -> Result<Self> {
        let mut attributes = Self::default();
        for attribute in input.attrs.iter().filter(|attribute| attribute.path().is_ident("message")) {
            attribute.parse_nested_meta(|meta| {
                let text: LitStr = meta.value()?.parse()?;
                let Some(name) = meta.path.get_ident().map(ToString::to_string) else {
                    return Err(meta.error("expected a name"));
                };
                match name.as_str() {
                    "topic" => attributes.topic = Some(text),
                    "codec" => attributes.codec = Some(text.parse()?),
                    "key" => attributes.key = Some(text.parse()?),
                    "subject" => attributes.subject = Some(text.parse()?),
                    "crate" => attributes.root = Some(text.parse()?),
                    _ => return Err(meta.error("expected topic, codec, key, subject or crate")),
                }
                Ok(())
            })?;
        }
        Ok(attributes)
    }
}

fn check_field(input: &DeriveInput, field: &Ident) -> Result<()> {
    let Data::Struct(data) = &input.data else {
        return Err(Error::new(field.span(), "only a struct with named fields has a key or a subject field"));
    };
    let Fields::Named(fields) = &data.fields else {
        return Err(Error::new(
            data.fields.span(),
            "only a struct with named fields has a key or a subject field",
        ));
    };
    if fields.named.iter().any(|known| known.ident.as_ref() == Some(field)) {
        return Ok(());
    }
    Err(Error::new(field.span(), format!("there is no field {field}")))
}

#[cfg(test)]
mod tests {
    use syn::parse_quote;

    use super::implement;

    #[track_caller]
    fn refused(input: &syn::DeriveInput) -> String {
        implement(input).unwrap_err().to_string()
    }

    #[test]
    fn a_message_without_topic_is_refused() {
        assert!(
            refused(&parse_quote!(
                struct Nothing;
            ))
            .contains("needs a topic")
        );
    }

    #[test]
    fn an_unknown_attribute_is_refused() {
        let error = refused(&parse_quote!(
            #[message(topics = "a")]
            struct Nothing;
        ));
        assert!(error.contains("expected topic"), "{error}");
    }

    #[test]
    fn a_key_that_is_no_field_is_refused() {
        let error = refused(&parse_quote!(
            #[message(topic = "a", key = "colour")]
            struct Thing {
                size: u8,
            }
        ));
        assert!(error.contains("no field colour"), "{error}");
        let error = refused(&parse_quote!(
            #[message(topic = "a", subject = "x")]
            enum Thing {
                A,
            }
        ));
        assert!(error.contains("only a struct"), "{error}");
    }
}

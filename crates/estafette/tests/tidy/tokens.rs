//! Just enough of Rust's lexer: words and punctuation with their lines, without comments, strings, characters
//! and lifetimes. Numbers count as words. It never fails: on text that is not Rust it returns something.

/// A word or one character of punctuation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    /// Its text: a whole word, or one character.
    pub(crate) text: String,
    /// The line it is on, from 1.
    pub(crate) line: usize,
}

/// The tokens of `source`, in order.
pub(crate) fn tokens(source: &str) -> Vec<Token> {
    let mut lexer = Lexer { rest: source, line: 1, tokens: Vec::new() };
    while !lexer.rest.is_empty() {
        lexer.step();
    }
    lexer.tokens
}

struct Lexer<'source> {
    rest: &'source str,
    line: usize,
    tokens: Vec<Token>,
}

impl Lexer<'_> {
    /// Takes one token, or skips one comment, literal, or space.
    fn step(&mut self) {
        let rest = self.rest;
        let Some(first) = rest.chars().next() else { return };
        if rest.starts_with("//") {
            self.skip(rest.find('\n').unwrap_or(rest.len()));
        } else if rest.starts_with("/*") {
            self.skip(block_comment_length(rest));
        } else if let Some(length) = raw_string_length(rest) {
            self.skip(length);
        } else if first == '"' {
            self.skip(quoted_length(rest, '"'));
        } else if first == '\'' {
            self.skip(character_or_lifetime_length(rest));
        } else if is_word(first) {
            self.take(rest.find(|character| !is_word(character)).unwrap_or(rest.len()));
        } else if first.is_whitespace() {
            self.skip(first.len_utf8());
        } else {
            self.take(first.len_utf8());
        }
    }

    fn take(&mut self, length: usize) {
        self.tokens.push(Token { text: self.rest[..length].to_owned(), line: self.line });
        self.skip(length);
    }

    fn skip(&mut self, length: usize) {
        self.line += self.rest[..length].matches('\n').count();
        self.rest = &self.rest[length..];
    }
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Block comments nest.
fn block_comment_length(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// The length of a raw string with any prefix and any number of `#`, or `None` when `text` begins otherwise
/// (a raw identifier such as `r#type` does).
fn raw_string_length(text: &str) -> Option<usize> {
    let prefix = ["br", "cr", "r"].into_iter().find(|prefix| text.starts_with(prefix))?;
    let after_prefix = &text[prefix.len()..];
    let hashes = after_prefix.len() - after_prefix.trim_start_matches('#').len();
    let body = after_prefix[hashes..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    let opening = prefix.len() + hashes + 1;
    Some(body.find(&close).map_or(text.len(), |end| opening + end + close.len()))
}

/// The length of a literal between two `quote`s in which a backslash hides the next character.
fn quoted_length(text: &str, quote: char) -> usize {
    let mut characters = text.char_indices().skip(1);
    while let Some((at, character)) = characters.next() {
        if character == '\\' {
            characters.next();
        } else if character == quote {
            return at + quote.len_utf8();
        }
    }
    text.len()
}

/// `'a'` and `'\n'` are characters, `'a` is a lifetime: a character has its closing quote right behind it.
fn character_or_lifetime_length(text: &str) -> usize {
    let mut after_quote = text.chars().skip(1);
    match (after_quote.next(), after_quote.next()) {
        (Some('\\'), _) | (Some(_), Some('\'')) => quoted_length(text, '\''),
        _ => text
            .char_indices()
            .skip(1)
            .find(|(_, character)| !is_word(*character))
            .map_or(text.len(), |(at, _)| at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(source: &str) -> Vec<String> {
        tokens(source).into_iter().map(|token| token.text).collect()
    }

    #[test]
    fn words_and_punctuation_are_tokens() {
        assert_eq!(texts("fn a1_b(){}"), ["fn", "a1_b", "(", ")", "{", "}"]);
    }

    #[test]
    fn comments_are_skipped_even_nested() {
        assert_eq!(texts("a // {\nb /* { /* } */ { */ c"), ["a", "b", "c"]);
    }

    #[test]
    fn strings_are_skipped_with_escapes_and_hashes() {
        assert_eq!(texts(r#"a "{ \" {" b"#), ["a", "b"]);
        assert_eq!(texts("a r##\"{ \"# {\"## b br\"{\\\" c"), ["a", "b", "c"]);
    }

    #[test]
    fn characters_are_skipped_and_lifetimes_do_not_open_one() {
        assert_eq!(texts(r"a '{' '\'' '\u{7b}' b"), ["a", "b"]);
        assert_eq!(
            texts("fn f<'a>(x: &'a str) {}"),
            ["fn", "f", "<", ">", "(", "x", ":", "&", "str", ")", "{", "}"]
        );
    }

    #[test]
    fn raw_identifiers_are_words() {
        assert_eq!(texts("r#type result"), ["r", "#", "type", "result"]);
    }

    #[test]
    fn lines_are_counted_through_everything_skipped() {
        let found = tokens("a\n/* \n */\n\"\n\" b");
        assert_eq!(found.iter().map(|token| token.line).collect::<Vec<_>>(), [1, 5]);
    }

    #[test]
    fn unfinished_text_ends() {
        for source in ["\"", "'", "'\\", "/*", "r#\"", "'a", "r"] {
            tokens(source);
        }
    }
}

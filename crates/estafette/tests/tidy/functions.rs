//! Where functions begin and end, by counting braces.

use crate::tokens::Token;

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    /// Its name.
    pub(crate) name: String,
    /// The line of its `fn`, from 1.
    pub(crate) line: usize,
    /// Lines from `fn` to the closing brace, both counted.
    pub(crate) length: usize,
}

/// Every function with a body, in the order they begin; nested ones count on their own as well.
pub(crate) fn functions(tokens: &[Token]) -> Vec<Function> {
    (0..tokens.len()).filter_map(|at| function_at(&tokens[at..])).collect()
}

fn function_at(tokens: &[Token]) -> Option<Function> {
    let [keyword, name, ..] = tokens else { return None };
    // A function pointer's type has a parenthesis there, a macro's pattern a `$`.
    if keyword.text != "fn" || !name.text.starts_with(|first: char| first.is_alphabetic() || first == '_') {
        return None;
    }
    let body = body_start(tokens)?;
    let end = block_end(&tokens[body..])?;
    Some(Function { name: name.text.clone(), line: keyword.line, length: end.line - keyword.line + 1 })
}

/// The body's opening brace; `None` when a `;` ends the signature, as in a trait. An array type's `;` stands
/// inside brackets.
fn body_start(tokens: &[Token]) -> Option<usize> {
    let mut depth = 0_i32;
    for (at, token) in tokens.iter().enumerate() {
        match token.text.as_str() {
            "(" | "[" => depth += 1,
            ")" | "]" => depth -= 1,
            ";" if depth == 0 => return None,
            "{" if depth == 0 => return Some(at),
            _ => {}
        }
    }
    None
}

/// The brace that closes the block `tokens` begin with.
pub(crate) fn block_end(tokens: &[Token]) -> Option<&Token> {
    let mut depth = 0_i32;
    tokens.iter().find(|token| {
        match token.text.as_str() {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
        depth == 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::tokens;

    fn found(source: &str) -> Vec<(String, usize, usize)> {
        let functions = functions(&tokens(source));
        functions.into_iter().map(|function| (function.name, function.line, function.length)).collect()
    }

    #[test]
    fn counts_from_the_keyword_to_the_closing_brace() {
        assert_eq!(found("\nfn one(\n) {\n if x { y }\n}\n"), [("one".into(), 2, 4)]);
    }

    #[test]
    fn braces_in_text_do_not_count() {
        assert_eq!(found("fn one() {\n \"}\"; '}'; // }\n}"), [("one".into(), 1, 3)]);
    }

    #[test]
    fn signatures_without_a_body_are_no_functions() {
        assert_eq!(
            found("trait T { fn a(&self) -> [u8; 2];\n fn b(&self) -> [u8; 2] {\n [1, 2] }\n}"),
            [("b".into(), 2, 2)]
        );
        assert_eq!(found("type F = fn(u8) -> u8; struct S {}"), []);
    }

    #[test]
    fn nested_functions_count_on_their_own() {
        assert_eq!(found("fn a() {\n fn b() {\n }\n}"), [("a".into(), 1, 4), ("b".into(), 2, 2)]);
    }
}

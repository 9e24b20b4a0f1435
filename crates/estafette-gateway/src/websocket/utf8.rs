//! UTF-8 that arrives in pieces: a character may be cut anywhere.

/// Checks text piece by piece, keeping the at most three bytes of a character that is not complete.
#[derive(Debug, Default, Clone, Copy)]
pub struct Utf8Checker {
    tail: [u8; 3],
    held: u8,
}

/// The bytes are not UTF-8, and no further bytes can make them so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotUtf8;

impl Utf8Checker {
    /// Takes the next piece.
    ///
    /// # Errors
    /// [`NotUtf8`] as soon as a byte cannot belong to any text.
    pub fn push(&mut self, mut piece: &[u8]) -> Result<(), NotUtf8> {
        while self.held > 0 {
            let Some((byte, rest)) = piece.split_first() else { return Ok(()) };
            let held = usize::from(self.held);
            let mut character = [self.tail[0], self.tail[1], self.tail[2], 0];
            *character.get_mut(held).ok_or(NotUtf8)? = *byte;
            piece = rest;
            self.keep(character.get(..=held).ok_or(NotUtf8)?)?;
        }
        self.keep(piece)
    }

    /// Checks `bytes`, which begin where a character does, and keeps the start of a character at their end.
    fn keep(&mut self, bytes: &[u8]) -> Result<(), NotUtf8> {
        let Err(error) = std::str::from_utf8(bytes) else {
            self.held = 0;
            return Ok(());
        };
        if error.error_len().is_some() {
            return Err(NotUtf8);
        }
        let rest = bytes.get(error.valid_up_to()..).ok_or(NotUtf8)?;
        self.tail.get_mut(..rest.len()).ok_or(NotUtf8)?.copy_from_slice(rest);
        self.held = u8::try_from(rest.len()).map_err(|_overflow| NotUtf8)?;
        Ok(())
    }

    /// Ends the text and starts another.
    ///
    /// # Errors
    /// [`NotUtf8`] if it ends within a character.
    pub fn finish(&mut self) -> Result<(), NotUtf8> {
        if std::mem::take(&mut self.held) == 0 { Ok(()) } else { Err(NotUtf8) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(bytes: &[u8], cuts: &[usize]) -> bool {
        let mut checker = Utf8Checker::default();
        let mut from = 0;
        for &cut in cuts {
            let to = cut.clamp(from, bytes.len());
            if checker.push(&bytes[from..to]).is_err() {
                return false;
            }
            from = to;
        }
        checker.push(&bytes[from..]).is_ok() && checker.finish().is_ok()
    }

    proptest! {
        #[test]
        fn text_in_pieces_is_text(text in "\\PC{0,40}", mut cuts: Vec<u8>) {
            cuts.sort_unstable();
            let cuts: Vec<_> = cuts.into_iter().map(usize::from).collect();
            prop_assert!(check(text.as_bytes(), &cuts));
        }

        #[test]
        fn pieces_are_judged_as_the_whole(bytes in prop::collection::vec(prop::sample::select(vec![0x41, 0xC3, 0xA9, 0xE2, 0x82, 0xAC, 0xF0, 0x9F, 0x98, 0x80, 0xED, 0xA0, 0xFF]), 0..12)) {
            let cuts: Vec<_> = (0..bytes.len()).collect();
            prop_assert_eq!(check(&bytes, &cuts), std::str::from_utf8(&bytes).is_ok());
        }
    }

    #[test]
    fn bad_text_is_seen_at_its_first_bad_byte() {
        let mut checker = Utf8Checker::default();
        assert_eq!(checker.push(&[0xED]), Ok(()));
        assert_eq!(checker.push(&[0xA0]), Err(NotUtf8));
    }
}

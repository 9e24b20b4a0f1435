//! Sheets: message files in the making. Lines on their way to the same queues share a sheet, and a sheet is one file, one flush.

use std::{collections::HashMap, sync::Arc};

use estafette_core::Timestamp;

use crate::{
    clock::Clock,
    name::{EntryName, FileId, Span},
    queues::Queues,
    store::Store,
};

/// A sheet of more bytes takes no further lines. Larger files would keep their space for long after most of it is settled.
const SHEET_BYTES_MAX: usize = 256 << 10;

/// Which folder of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Folder {
    New,
    Dead,
}

impl Folder {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Dead => "dead",
        }
    }
}

/// Where a line goes, and what its entry's name says.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) queues: Queues,
    pub(crate) folder: Folder,
    /// When it becomes visible; as soon as it is stored when none.
    pub(crate) due: Option<Timestamp>,
    pub(crate) retrying: bool,
    pub(crate) key: Option<u32>,
}

impl Slot {
    /// What an entry says apart from where it is: lines that differ in it need entries of their own.
    fn mark(&self) -> Mark {
        (self.due, self.retrying, self.key)
    }
}

type Mark = (Option<Timestamp>, bool, Option<u32>);

/// A file to be written, and the entries that will stand for its lines.
pub(crate) struct Sheet {
    pub(crate) queues: Queues,
    pub(crate) folder: Folder,
    pub(crate) bytes: Vec<u8>,
    pub(crate) entries: Vec<EntryName>,
    /// Which requests' items are on it, in the order of lines.
    pub(crate) items: Vec<(usize, usize)>,
    pub(crate) file: FileId,
    /// The mark of the last entry, as long as it may take another line.
    open: Option<Mark>,
}

/// Sorts lines onto sheets.
pub(crate) struct Sorter<'a> {
    store: &'a Store,
    pub(crate) sheets: Vec<Sheet>,
    /// The sheet that lines for these queues go onto.
    open: HashMap<(Folder, Vec<Arc<str>>), usize>,
    /// The sheet that had the last line for a queue.
    last: HashMap<Arc<str>, usize>,
    /// The sheet that had the last line of all, and for which queues.
    current: Option<(Queues, Folder, usize)>,
}

impl<'a> Sorter<'a> {
    pub(crate) fn new(store: &'a Store) -> Self {
        Self { store, sheets: Vec::new(), open: HashMap::new(), last: HashMap::new(), current: None }
    }

    /// Puts a line, which ends with a line feed, onto a sheet.
    pub(crate) fn add(&mut self, line: &[u8], slot: &Slot, item: (usize, usize)) {
        let index = self.sheet_for(slot);
        if let Some(sheet) = self.sheets.get_mut(index) {
            sheet.add(line, slot, &self.store.clock);
            sheet.items.push(item);
        }
    }

    fn sheet_for(&mut self, slot: &Slot) -> usize {
        let lines_max = self.store.config.file_messages_max;
        let has_room = |sheet: &Sheet| sheet.items.len() < lines_max && sheet.bytes.len() < SHEET_BYTES_MAX;
        // Nearly always the same as for the line before.
        if let Some((queues, folder, index)) = &self.current
            && Arc::ptr_eq(queues, &slot.queues)
            && *folder == slot.folder
            && self.sheets.get(*index).is_some_and(has_room)
        {
            return *index;
        }
        let directories = slot.queues.iter().map(|queue| Arc::clone(&queue.directory)).collect();
        let index = self.open.entry((slot.folder, directories)).or_insert(usize::MAX);
        if !self.sheets.get(*index).is_some_and(has_room) {
            *index = self.sheets.len();
            self.sheets.push(Sheet::new(slot, self.store.new_file()));
        }
        let index = *index;
        self.current = Some((Arc::clone(&slot.queues), slot.folder, index));
        self.keep_order(index, slot);
        index
    }

    /// Entries of one queue must come out in the order of publishing: a sheet that was interrupted by another one for the
    /// same queue continues with a new entry, due later.
    fn keep_order(&mut self, index: usize, slot: &Slot) {
        for queue in slot.queues.iter().filter(|_| slot.folder == Folder::New) {
            let before = self.last.insert(Arc::clone(&queue.directory), index);
            if before.is_some_and(|before| before != index)
                && let Some(sheet) = self.sheets.get_mut(index)
            {
                sheet.open = None;
            }
        }
    }
}

impl Sheet {
    fn new(slot: &Slot, file: FileId) -> Self {
        let (queues, folder) = (Arc::clone(&slot.queues), slot.folder);
        Self { queues, folder, bytes: Vec::new(), entries: Vec::new(), items: Vec::new(), file, open: None }
    }

    fn add(&mut self, line: &[u8], slot: &Slot, clock: &Clock) {
        let first = u32::try_from(self.items.len()).unwrap_or(u32::MAX);
        let offset = self.bytes.len() as u64;
        self.bytes.extend_from_slice(line);
        if let Some(entry) = self.entries.last_mut().filter(|_| self.open == Some(slot.mark())) {
            entry.span.count += 1;
            return;
        }
        // Each dead letter is listed, redriven and purged by itself.
        self.open = (slot.folder == Folder::New).then(|| slot.mark());
        self.entries.push(EntryName {
            due: slot.due.unwrap_or_else(|| clock.tick()),
            file: self.file,
            span: Span { first, count: 1, offset },
            attempts: 0,
            retrying: slot.retrying,
            key: slot.key,
        });
    }
}

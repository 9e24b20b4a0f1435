//! Workers in other languages, over one JSON object a line.

//! CLIENT, as far as it is about the asking client: its name and that of its library.
#![forbid(unsafe_code)]

use crate::engine::Engine;
use crate::protocol::resp::write;

const BAD_NAME: &[u8] = b"ERR Client names cannot contain spaces, newlines or special characters.";

impl Engine {
    pub(super) fn getname(&mut self, ix: usize) {
        let client = &mut self.clients[ix];
        let (name, version) = (client.name.clone(), client.version);
        client.reply_with(&mut self.pool, |out| match &name {
            Some(name) => write::bulk(out, name),
            None => write::null(out, version),
        });
    }

    pub(super) fn set_name(&mut self, ix: usize, name: &[u8]) -> Result<(), &'static [u8]> {
        if name.iter().any(|byte| !(b'!'..=b'~').contains(byte)) {
            return Err(BAD_NAME);
        }
        self.clients[ix].name = (!name.is_empty()).then(|| name.into());
        Ok(())
    }

    pub(super) fn setinfo(&mut self, ix: usize, attribute: &[u8]) {
        if attribute.eq_ignore_ascii_case(b"lib-name") || attribute.eq_ignore_ascii_case(b"lib-ver")
        {
            return self.clients[ix].reply(b"+OK\r\n", &mut self.pool);
        }
        let mut text = b"ERR Unrecognized option '".to_vec();
        text.extend(attribute.iter().take(128));
        text.push(b'\'');
        self.reply_error(ix, &text);
    }
}

//! Parses and checks a script.

use crate::place::number;
use crate::statement::{MESSAGES, Statement, Value};
use crate::{
    Line, Listener, ListenerId, MAX_LISTENERS, MAX_NESTING, MAX_REP_BYTES, MAX_SAMPLES,
    MAX_STATEMENTS, MAX_VCPUS, Place, Program, Reason, ScriptError, Source, Width,
};

impl<'a> Program<'a> {
    /// Parses the script of all vCPUs.
    ///
    /// # Errors
    /// The first statement that is wrong, with the reason.
    pub fn parse(text: &'a str) -> Result<Self, ScriptError<'a>> {
        let mut program = Self::empty();
        for (vcpu, statement) in statements(text) {
            program.declare(vcpu, statement).map_err(|reason| ScriptError {
                vcpu,
                statement,
                reason,
            })?;
        }
        for (vcpu, section) in text.split('|').enumerate() {
            Section::new(&mut program, vcpu).parse(section)?;
        }
        Ok(program)
    }

    /// Registers the name of a `listen`, so that any section may use it.
    fn declare(&mut self, vcpu: usize, statement: &'a str) -> Result<(), Reason> {
        let mut tokens = Tokens::of(statement);
        if tokens.verb != "listen" {
            return Ok(());
        }
        let source = tokens.source()?;
        let name = tokens.name()?;
        let vector = source.vector();
        let clash = |known: &Listener<'_>| {
            known.name == name || (vector.is_some() && known.source.vector() == vector)
        };
        if self.listeners().iter().any(clash) {
            return Err(Reason::Twice);
        }
        self.add_listener(Listener { name, source, vcpu })
    }

    fn find(&self, name: &str) -> Result<ListenerId, Reason> {
        self.listeners()
            .iter()
            .position(|known| known.name == name)
            .and_then(ListenerId::new)
            .ok_or(Reason::Unknown)
    }
}

/// All non-empty statements, with their vCPU.
fn statements(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.split('|').enumerate().flat_map(|(vcpu, section)| {
        section.split(';').map(str::trim).filter(|text| !text.is_empty()).map(move |s| (vcpu, s))
    })
}

/// One vCPU's section while it is parsed.
struct Section<'p, 'a> {
    program: &'p mut Program<'a>,
    vcpu: usize,
    /// The loops that are open, innermost last.
    open: [Open<'a>; MAX_NESTING],
    depth: usize,
    listening: [bool; MAX_LISTENERS],
    meets: u64,
}

#[derive(Clone, Copy)]
struct Open<'a> {
    statement: &'a str,
    /// `None` for `until`, whose number of rounds is not known.
    rounds: Option<u64>,
}

impl<'p, 'a> Section<'p, 'a> {
    fn new(program: &'p mut Program<'a>, vcpu: usize) -> Self {
        let open = [Open { statement: "", rounds: None }; MAX_NESTING];
        Self { program, vcpu, open, depth: 0, listening: [false; MAX_LISTENERS], meets: 0 }
    }

    fn parse(mut self, section: &'a str) -> Result<(), ScriptError<'a>> {
        let vcpu = self.vcpu;
        let error = |statement, reason| ScriptError { vcpu, statement, reason };
        if vcpu >= MAX_VCPUS {
            return Err(error("", Reason::Vcpus));
        }
        for (_, statement) in statements(section) {
            self.statement(statement).map_err(|reason| error(statement, reason))?;
        }
        if let Some(open) = self.open[..self.depth].last() {
            return Err(error(open.statement, Reason::Open));
        }
        if !self.program.close_section(self.meets) {
            return Err(error("", Reason::Meets));
        }
        Ok(())
    }

    fn statement(&mut self, statement: &'a str) -> Result<(), Reason> {
        let mut tokens = Tokens::of(statement);
        let parsed = self.build(statement, &mut tokens)?;
        tokens.finish()?;
        if self.program.push(parsed) { Ok(()) } else { Err(Reason::Statements) }
    }

    fn build(
        &mut self,
        statement: &'a str,
        tokens: &mut Tokens<'a>,
    ) -> Result<Statement<'a>, Reason> {
        Ok(match tokens.verb {
            "write" => {
                let (place, width, value) = self.access(tokens)?;
                Statement::Write { place, width, value }
            }
            "read" => {
                let (place, width) = tokens.target()?;
                Statement::Read { place, width }
            }
            "peek" => {
                let (place, width) = tokens.target()?;
                Statement::Peek { place, width }
            }
            "rep" => {
                let (place, width, value) = self.access(tokens)?;
                let count = tokens.number()?;
                let bytes = count.checked_mul(width.bytes()).ok_or(Reason::Rep)?;
                if bytes == 0 || bytes > MAX_REP_BYTES {
                    return Err(Reason::Rep);
                }
                place.check(width, bytes)?;
                Statement::Rep { place, width, value, count }
            }
            "pair" => {
                let (place, width, value) = self.access(tokens)?;
                if matches!(place, Place::Pio(_)) {
                    return Err(Reason::Place);
                }
                if width.bytes() < 4 {
                    return Err(Reason::Width);
                }
                place.check(width, 2 * width.bytes())?;
                Statement::Pair { place, width, value }
            }
            "repeat" => {
                let count = tokens.number()?;
                self.enter(Open { statement, rounds: Some(count) })?;
                Statement::Repeat { count }
            }
            "until" => {
                let listener = self.known(tokens)?;
                self.enter(Open { statement, rounds: None })?;
                Statement::Until { listener }
            }
            "end" => {
                self.depth = self.depth.checked_sub(1).ok_or(Reason::End)?;
                Statement::End
            }
            "meet" => {
                self.meet()?;
                Statement::Meet
            }
            "pause" => Statement::Pause { count: tokens.number()? },
            "listen" => Statement::Listen { listener: self.listen(tokens)? },
            "wait" => Statement::Wait { listener: self.known(tokens)?, count: tokens.count()? },
            "send" => {
                let listener = self.known(tokens)?;
                let source = self.program.listeners().get(listener.index()).map(|l| l.source);
                if source != Some(Source::Evtchn) {
                    return Err(Reason::Send);
                }
                Statement::Send { listener, count: tokens.count()? }
            }
            "balloon" => Statement::Balloon { pages: tokens.number()? },
            "time" => {
                if tokens.next()? != "write" {
                    return Err(Reason::Verb);
                }
                let (place, width, value) = self.access(tokens)?;
                Statement::Time { place, width, value, count: tokens.samples(MAX_SAMPLES)? }
            }
            "stamp" => match tokens.next()? {
                "write" => {
                    let (place, width, value) = self.access(tokens)?;
                    let count = tokens.samples(MAX_SAMPLES / 2)?;
                    Statement::StampWrite { place, width, value, count }
                }
                "wait" => {
                    let listener = self.known(tokens)?;
                    Statement::StampWait { listener, count: tokens.samples(MAX_SAMPLES)? }
                }
                _ => return Err(Reason::Verb),
            },
            "stamps" => Statement::Stamps,
            "say" => Statement::Say { words: tokens.rest() },
            "soft-reset" => Statement::SoftReset,
            "poweroff" => Statement::Poweroff,
            "crash" => Statement::Crash,
            _ => return Err(Reason::Verb),
        })
    }

    fn access(&self, tokens: &mut Tokens<'a>) -> Result<(Place, Width, Value), Reason> {
        let (place, width) = tokens.target()?;
        let token = tokens.next()?;
        let counter = match token.strip_prefix('i') {
            Some("") => Some(0),
            Some(plus) => plus.strip_prefix('+').and_then(number),
            None => None,
        };
        let value = match counter {
            Some(_) if self.depth == 0 => return Err(Reason::Counter),
            Some(plus) => Value::Counter(plus),
            None => {
                let value = number(token).ok_or(Reason::Number)?;
                if width.truncate(value) != value {
                    return Err(Reason::Value);
                }
                Value::Number(value)
            }
        };
        Ok((place, width, value))
    }

    fn enter(&mut self, open: Open<'a>) -> Result<(), Reason> {
        *self.open.get_mut(self.depth).ok_or(Reason::Nesting)? = open;
        self.depth += 1;
        Ok(())
    }

    fn meet(&mut self) -> Result<(), Reason> {
        let mut times = 1_u64;
        for open in &self.open[..self.depth] {
            times = times.saturating_mul(open.rounds.ok_or(Reason::Meet)?);
        }
        self.meets = self.meets.saturating_add(times);
        Ok(())
    }

    /// `declare` has checked this statement except for its position.
    fn listen(&mut self, tokens: &mut Tokens<'a>) -> Result<ListenerId, Reason> {
        if self.depth > 0 {
            return Err(Reason::Listen);
        }
        tokens.source()?;
        let listener = self.program.find(tokens.name()?)?;
        if let Some(listening) = self.listening.get_mut(listener.index()) {
            *listening = true;
        }
        Ok(listener)
    }

    fn known(&self, tokens: &mut Tokens<'a>) -> Result<ListenerId, Reason> {
        let id = self.program.find(tokens.name()?)?;
        let listener = self.program.listeners().get(id.index()).ok_or(Reason::Unknown)?;
        let own = listener.vcpu == self.vcpu;
        let listening = self.listening.get(id.index()).copied().unwrap_or(false);
        match listener.source {
            _ if own && !listening => Err(Reason::Unknown),
            Source::Line(line) if line.is_level() && !own => Err(Reason::Elsewhere),
            _ => Ok(id),
        }
    }
}

/// A statement's words.
struct Tokens<'a> {
    verb: &'a str,
    rest: &'a str,
}

impl<'a> Tokens<'a> {
    fn of(statement: &'a str) -> Self {
        let (verb, rest) = split(statement);
        Self { verb, rest }
    }

    fn optional(&mut self) -> Option<&'a str> {
        let (token, rest) = split(self.rest);
        self.rest = rest;
        (!token.is_empty()).then_some(token)
    }

    fn next(&mut self) -> Result<&'a str, Reason> {
        self.optional().ok_or(Reason::Missing)
    }

    fn number(&mut self) -> Result<u64, Reason> {
        number(self.next()?).ok_or(Reason::Number)
    }

    /// A count; the default is 1.
    fn count(&mut self) -> Result<u64, Reason> {
        self.optional().map_or(Ok(1), |token| number(token).ok_or(Reason::Number))
    }

    /// A number of samples: at least 1 and at most `most`.
    fn samples(&mut self, most: usize) -> Result<usize, Reason> {
        let count = usize::try_from(self.number()?).map_err(|_| Reason::Samples)?;
        if (1..=most).contains(&count) { Ok(count) } else { Err(Reason::Samples) }
    }

    fn source(&mut self) -> Result<Source, Reason> {
        Ok(match self.next()? {
            "evtchn" => Source::Evtchn,
            "msi" => match u8::try_from(self.number()?) {
                Ok(vector) if MESSAGES.contains(&vector) => Source::Msi(vector),
                _ => return Err(Reason::Vector),
            },
            "isa" => Source::Line(Line::Isa(self.line_number(15)?)),
            "spi" => {
                let number = u8::try_from(self.number()?).map_err(|_| Reason::Line)?;
                let level = match self.next()? {
                    "edge" => false,
                    "level" => true,
                    _ => return Err(Reason::Verb),
                };
                if number < 32 {
                    return Err(Reason::Line);
                }
                Source::Line(Line::Spi { number, level })
            }
            "intx" => {
                let (device, pin) = (self.line_number(31)?, self.line_number(3)?);
                Source::Line(Line::Intx { device, pin })
            }
            _ => return Err(Reason::Verb),
        })
    }

    fn line_number(&mut self, last: u8) -> Result<u8, Reason> {
        let number = u8::try_from(self.number()?).map_err(|_| Reason::Line)?;
        if number <= last { Ok(number) } else { Err(Reason::Line) }
    }

    fn name(&mut self) -> Result<&'a str, Reason> {
        let name = self.next()?;
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let good = name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(plain);
        if good && name != "i" { Ok(name) } else { Err(Reason::Name) }
    }

    fn target(&mut self) -> Result<(Place, Width), Reason> {
        let place = Place::parse(self.next()?)?;
        let width = Width::parse(self.next()?)?;
        place.check(width, width.bytes())?;
        Ok((place, width))
    }

    fn rest(&mut self) -> &'a str {
        core::mem::take(&mut self.rest)
    }

    fn finish(self) -> Result<(), Reason> {
        if self.rest.is_empty() { Ok(()) } else { Err(Reason::Excess) }
    }
}

/// The first word and the rest, without the blanks around either.
fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    text.split_once(char::is_whitespace).map_or((text, ""), |(word, rest)| (word, rest.trim()))
}

const _: () = assert!(MAX_STATEMENTS <= u16::MAX as usize, "section bounds are u16");

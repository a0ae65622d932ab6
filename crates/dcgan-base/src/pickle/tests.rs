//! Tests of the stack machine: supported and refused pickles.

use super::*;

const LIMITS: Limits = Limits { objects: 1 << 22, classes: 1 << 12 };

#[derive(Clone, Copy, Debug, PartialEq)]
enum Known {
    Size,
    /// Followed by as many bytes as its state says, from 0 to 255.
    InFile,
}

impl KnownClass for Known {
    fn find(module: &str, name: &str) -> Option<Self> {
        match (module, name) {
            ("torch", "Size") => Some(Self::Size),
            ("joblib", "Array") => Some(Self::InFile),
            _ => None,
        }
    }

    fn data(self, pickle: &Pickle<'_, Self>, state: Id) -> Result<Option<DataExtent>, &'static str> {
        let extent = |bytes| DataExtent { bytes, is_aligned: pickle.entry(state, "aligned").is_some() };
        match (self, pickle.entry(state, "size").and_then(|size| pickle.size(size))) {
            (Self::Size, _) => Ok(None),
            (Self::InFile, Some(bytes)) => Ok(Some(extent(bytes))),
            (Self::InFile, None) => Err("a size"),
        }
    }
}

fn read(bytes: &[u8]) -> Result<Pickle<'_, Known>, PickleError> {
    Pickle::read(bytes, LIMITS)
}

fn debug(pickle: &Pickle<'_, Known>, id: Id) -> String {
    let list = |items: &[Id]| items.iter().map(|item| debug(pickle, *item)).collect::<Vec<_>>().join(" ");
    match pickle.node(id) {
        Node::Text(text) => (*text).to_owned(),
        Node::Bytes(_) | Node::Latin1(_) => format!("{:?}", pickle.bytes(id).unwrap()),
        Node::Int(value) => value.to_string(),
        Node::List(items) => format!("[{}]", list(items)),
        Node::Tuple(items) => format!("({})", list(items)),
        Node::Dict(pairs) => {
            format!("{{{}}}", list(&pairs.iter().flat_map(|(k, v)| [*k, *v]).collect::<Vec<_>>()))
        }
        Node::Object { class, arguments, .. } => match pickle.class_name(*class) {
            Some(name) => format!("{name}{}", debug(pickle, *arguments)),
            None => match class {
                Class::Computed(id) => format!("({}){}", debug(pickle, *id), debug(pickle, *arguments)),
                class => format!("{class:?}{}", debug(pickle, *arguments)),
            },
        },
        Node::Class(class @ Class::Opaque(_)) => {
            format!("Global({})", pickle.class_name(*class).unwrap_or_default())
        }
        Node::Persistent(inner) => format!("@{}", debug(pickle, *inner)),
        node => format!("{node:?}"),
    }
}

#[test]
fn reads_the_opcodes_of_every_protocol() {
    let rows: [(&[u8], &str); 13] = [
        (b"\x80\x02N.", "None"),
        (b"\x80\x02]q\x00(K\x01M\x00\x01J\xff\xff\xff\xff\x88\x89e.", "[1 256 -1 Bool(true) Bool(false)]"),
        (b"\x80\x02\x8a\x06\x00\x00\x00\x00\x00\x01.", "1099511627776"),
        (b"\x80\x02\x8a\x01\xfe.", "-2"),
        (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", "LongInt"),
        (b"\x80\x02G?\xf8\x00\x00\x00\x00\x00\x00.", "Float(1.5)"),
        (b"\x80\x04\x95\x0a\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x01a\x94K\x01s.", "{a 1}"),
        (b"\x80\x04\x95\x09\x00\x00\x00\x00\x00\x00\x00C\x02hi\x94h\x00\x86\x94.", "([104, 105] [104, 105])"),
        (b"(lp0\nI1\naL2L\naF1.5\naS'x'\np1\naI01\naVy\nag1\na.", "[1 2 Float(1.5) x Bool(true) y x]"),
        (
            b"\x80\x02ccollections\nOrderedDict\nq\x00)Rq\x01K\x01K\x02s}X\x09\x00\x00\x00_metadataNsb.",
            "{1 2}",
        ),
        (b"\x80\x02c_codecs\nencode\nX\x03\x00\x00\x00a\xc3\xbfX\x06\x00\x00\x00latin1\x86R.", "[97, 255]"),
        // Python 2 writes OrderedDict([[1, 2]]).
        (b"\x80\x02ccollections\nOrderedDict\n](](K\x01K\x02ee\x85R.", "{1 2}"),
        (b"\x80\x02(U\x01sctorch\nSize\n](K\x01K\x02e\x85RtQ.", "@([115] Known(Size)([1 2]))"),
    ];
    for (bytes, expected) in rows {
        let pickle = read(bytes).expect(expected);
        assert_eq!(debug(&pickle, pickle.root()), expected);
        assert_eq!(pickle.length(), bytes.len(), "{expected}");
        for length in 0..bytes.len() {
            assert!(read(&bytes[..length]).is_err(), "{expected} cut to {length} bytes");
        }
    }
}

/// Classes, functions and calls of any kind are recorded by name. Nothing is called.
#[test]
fn records_everything_else() {
    let rows: [(&[u8], &str); 14] = [
        (b"cos\nsystem\n(S'x'\ntR.", "os.system(x)"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "Global(os.system)"),
        (b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R.", "builtins.eval(1)"),
        (b"c__main__\nNet\n)\x81}U\x08_modulesNsb.", "__main__.Net()"),
        (b"(ios\nsystem\n.", "os.system()"),
        (b"(cos\nsystem\nK\x01o.", "os.system(1)"),
        (b"\x80\x04cm\nC\n)}\x92.", "m.C()"),
        // The result of a call is called.
        (b"cbuiltins\ngetattr\n(cm\nC\nS'f'\ntR)R.", "(builtins.getattr(Global(m.C) f))()"),
        (b"\x80\x04\x8f(K\x01K\x02\x90.", "[1 2]"),
        (b"\x80\x04(K\x01\x91.", "[1]"),
        (b"ccollections\ndefaultdict\n(c__builtin__\nlist\ntRK\x01K\x02s}b.", "{1 2}"),
        (b"ccollections\ndeque\n)R(K\x01K\x02e.", "[1 2]"),
        (b"S'a\\nb'\n.", "a\\nb"),
        (b"Pan id\n.", "@an id"),
    ];
    for (bytes, expected) in rows {
        let pickle = read(bytes).expect(expected);
        assert_eq!(debug(&pickle, pickle.root()), expected);
    }
}

#[test]
fn refuses_what_no_pickle_has() {
    let rows: [(&[u8], &str); 12] = [
        (b"(o.", "expected a class"),
        (b"\x80\x02\x82\x01.", "unsupported opcode 0x82"),
        (b"\x80\x05\x97.", "unsupported opcode 0x97"),
        (b"K\x01K\x02R.", "expected a tuple of arguments"),
        (b"ctorch\nSize\nK\x01R.", "expected a tuple of arguments"),
        (b"cjoblib\nArray\n)R}b.", "expected a size"),
        (b"K\x01}b.", "expected an object with attributes"),
        (b"K\x01K\x02a.", "expected a list or a dict"),
        (b"}(K\x01u.", "expected a value for every key"),
        (b"h\x07.", "expected a value in the memo"),
        (b"(K\x01e.", "expected a value"),
        (b"X\xff\xff\xff\xffab", "expected 4294967295 more bytes, found 2: the file is cut short"),
    ];
    for (bytes, expected) in rows {
        let error = read(bytes).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}, expected {expected}");
    }
}

/// Files of a few megabytes that would take unbounded memory, time or recursion.
#[test]
fn bounds_its_work() {
    let repeated = |times: usize, start: &[u8], unit: &[u8], end: &[u8]| {
        [start, unit.repeat(times).as_slice(), end].concat()
    };
    let nested = repeated(1_000_000, b"", b"]", &[b"a".repeat(999_999), b".".to_vec()].concat());
    let nested = read(&nested);
    assert!(nested.is_ok(), "a million nested lists: {nested:?}");
    let ordered = b"ccollections\nOrderedDict\nq\x00";
    let pairs = repeated(10_000, b"0](", b"]K\x01aK\x02a", b"eq\x01");
    let rows = [
        ("marks", repeated(LIMITS.objects + 1, b"", b"(", b".")),
        ("memo", repeated(LIMITS.objects + 1, b"N", b"\x94", b".")),
        ("copies", repeated(LIMITS.objects, b"N", b"2", b".")),
        ("shared lists", repeated(1_000, &[ordered, pairs.as_slice()].concat(), b"h\x00h\x01\x85R", b".")),
    ];
    // A few long texts combined to many names.
    let text = |i: u8| [b"\x8c\x03".as_slice(), &[b'a' + i % 26, b'a' + i / 26, b'x'], b"\x94"].concat();
    let texts: Vec<u8> = (0..100).flat_map(text).collect();
    let pairs = (0..100_u8).flat_map(|a| (0..100_u8).map(move |b| [b'h', a, b'h', b, 0x93, b'0']));
    let names = [texts, pairs.flatten().collect(), b".".to_vec()].concat();
    let too_many =
        |error: PickleError| matches!(error.kind, PickleErrorKind::TooManyClasses { limit: 4096, .. });
    assert!(too_many(read(&names).expect_err("names")));
    for (what, bytes) in rows {
        let error = read(&bytes).expect_err(what);
        assert_eq!(error.kind, PickleErrorKind::TooManyObjects(LIMITS.objects), "{what}");
    }
}

/// Data between the opcodes, and a pickle that may name no class but the known ones.
#[test]
fn data_and_classes() {
    let start = b"\x80\x02cjoblib\nArray\n)R}U\x04sizeK\x03s";
    let rows: [(&[u8], &[u8]); 2] = [(b"babc.", b"abc"), (b"U\x07alignedNsb\x02__abc.", b"abc")];
    for (end, expected) in rows {
        let file = [start, end].concat();
        let pickle = read(&file).unwrap();
        let Node::Object { data, .. } = pickle.node(pickle.root()) else { panic!("{pickle:?}") };
        assert_eq!((&file[data.clone()], pickle.length()), (expected, file.len()));
        assert!(read(&file[..file.len() - 2]).is_err());
    }
    let none = Limits { classes: 0, ..LIMITS };
    assert!(Pickle::<Known>::read(b"ctorch\nSize\n.", none).is_ok());
    let error = Pickle::<Known>::read(b"cos\nsystem\n.", none).unwrap_err();
    let kind = PickleErrorKind::TooManyClasses { limit: 0, name: "os.system".to_owned() };
    assert_eq!(error, PickleError { offset: 11, kind });
}

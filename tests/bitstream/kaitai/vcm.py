# Generated from formats/vcm.ksy by generate.js; README.md says how.
# This is a generated file! Please edit source .ksy file and use kaitai-struct-compiler to rebuild
# type: ignore

import kaitaistruct
from kaitaistruct import KaitaiStruct, KaitaiStream, BytesIO
from enum import IntEnum


if getattr(kaitaistruct, 'API_VERSION', (0, 9)) < (0, 11):
    raise Exception("Incompatible Kaitai Struct Python API: 0.11 or later is required, but you have %s" % (kaitaistruct.__version__))

class Vcm(KaitaiStruct):
    """A picture for machines and people, in one file that is read in part.  This grammar follows
    vcm-1.md, which is the norm; section numbers below are those of the norm.  A grammar cannot say
    everything: checksums, canonical order, uniqueness and the sums of cells are left to the norm.
    """

    class Coder(IntEnum):
        rans_16 = 1
        range_static = 2

    class Kind(IntEnum):
        icc = 1
        digest = 2
        text = 3
        group_map = 128
        latent = 129
        refinement = 130

    class Layer(IntEnum):
        base = 0
        mid = 1
        full = 2

    class Profile(IntEnum):
        scene = 1
        pyramid = 2
        bottleneck = 3
        semantic = 4

    class Task(IntEnum):
        human = 0
        detection = 1
        classification = 2
        segmentation = 3
    def __init__(self, _io, _parent=None, _root=None):
        super(Vcm, self).__init__(_io)
        self._parent = _parent
        self._root = _root or self
        self._read()

    def _read(self):
        self.signature = self._io.read_bytes(8)
        if not self.signature == b"\x89\x56\x43\x4D\x0D\x0A\x1A\x0A":
            raise kaitaistruct.ValidationNotEqualError(b"\x89\x56\x43\x4D\x0D\x0A\x1A\x0A", self.signature, self._io, u"/seq/0")
        self.major = self._io.read_u1()
        if not self.major == 1:
            raise kaitaistruct.ValidationNotEqualError(1, self.major, self._io, u"/seq/1")
        self.minor = self._io.read_u1()
        self.header_length = Vcm.Varint(self._io, self, self._root)
        self._raw_header = self._io.read_bytes(self.header_length.value)
        _io__raw_header = KaitaiStream(BytesIO(self._raw_header))
        self.header = Vcm.Header(_io__raw_header, self, self._root)
        self.substreams = []
        for i in range(self.header.directory.num_entries.value):
            self.substreams.append(Vcm.Substream(i, self._io, self, self._root))



    def _fetch_instances(self):
        pass
        self.header_length._fetch_instances()
        self.header._fetch_instances()
        for i in range(len(self.substreams)):
            pass
            self.substreams[i]._fetch_instances()


    class Box(KaitaiStruct):
        """in cells."""
        def __init__(self, _io, _parent=None, _root=None):
            super(Vcm.Box, self).__init__(_io)
            self._parent = _parent
            self._root = _root
            self._read()

        def _read(self):
            self.left = Vcm.Varint(self._io, self, self._root)
            self.top = Vcm.Varint(self._io, self, self._root)
            self.width = Vcm.Varint(self._io, self, self._root)
            self.height = Vcm.Varint(self._io, self, self._root)


        def _fetch_instances(self):
            pass
            self.left._fetch_instances()
            self.top._fetch_instances()
            self.width._fetch_instances()
            self.height._fetch_instances()


    class Directory(KaitaiStruct):
        def __init__(self, is_tiled, _io, _parent=None, _root=None):
            super(Vcm.Directory, self).__init__(_io)
            self._parent = _parent
            self._root = _root
            self.is_tiled = is_tiled
            self._read()

        def _read(self):
            self.num_entries = Vcm.Varint(self._io, self, self._root)
            self.entries = []
            for i in range(self.num_entries.value):
                self.entries.append(Vcm.Entry(self.is_tiled, self._io, self, self._root))



        def _fetch_instances(self):
            pass
            self.num_entries._fetch_instances()
            for i in range(len(self.entries)):
                pass
                self.entries[i]._fetch_instances()



    class Entry(KaitaiStruct):
        def __init__(self, is_tiled, _io, _parent=None, _root=None):
            super(Vcm.Entry, self).__init__(_io)
            self._parent = _parent
            self._root = _root
            self.is_tiled = is_tiled
            self._read()

        def _read(self):
            self.kind = KaitaiStream.resolve_enum(Vcm.Kind, self._io.read_u1())
            self.layer = KaitaiStream.resolve_enum(Vcm.Layer, self._io.read_u1())
            self.group = self._io.read_u1()
            if self.is_tiled:
                pass
                self.tile = Vcm.Varint(self._io, self, self._root)

            self.length = Vcm.Varint(self._io, self, self._root)
            self.crc32 = self._io.read_u4le()


        def _fetch_instances(self):
            pass
            if self.is_tiled:
                pass
                self.tile._fetch_instances()

            self.length._fetch_instances()


    class Flags(KaitaiStruct):
        def __init__(self, _io, _parent=None, _root=None):
            super(Vcm.Flags, self).__init__(_io)
            self._parent = _parent
            self._root = _root
            self._read()

        def _read(self):
            self.reserved = self._io.read_bits_int_be(6)
            if not self.reserved == 0:
                raise kaitaistruct.ValidationNotEqualError(0, self.reserved, self._io, u"/types/flags/seq/0")
            self.redacted = self._io.read_bits_int_be(1) != 0
            self.grey = self._io.read_bits_int_be(1) != 0


        def _fetch_instances(self):
            pass


    class Group(KaitaiStruct):
        def __init__(self, _io, _parent=None, _root=None):
            super(Vcm.Group, self).__init__(_io)
            self._parent = _parent
            self._root = _root
            self._read()

        def _read(self):
            self.id = self._io.read_u1()
            self.score = self._io.read_u1()
            self.len_label = self._io.read_u1()
            if not self.len_label <= 64:
                raise kaitaistruct.ValidationGreaterThanError(64, self.len_label, self._io, u"/types/group/seq/2")
            self.label = (self._io.read_bytes(self.len_label)).decode(u"UTF-8")
            self.box = Vcm.Box(self._io, self, self._root)
            self.cells = Vcm.Varint(self._io, self, self._root)


        def _fetch_instances(self):
            pass
            self.box._fetch_instances()
            self.cells._fetch_instances()


    class Header(KaitaiStruct):
        def __init__(self, _io, _parent=None, _root=None):
            super(Vcm.Header, self).__init__(_io)
            self._parent = _parent
            self._root = _root
            self._read()

        def _read(self):
            self.profile = KaitaiStream.resolve_enum(Vcm.Profile, self._io.read_u1())
            self.flags = Vcm.Flags(self._io, self, self._root)
            self.fingerprint = self._io.read_bytes(8)
            self.width = Vcm.Varint(self._io, self, self._root)
            self.height = Vcm.Varint(self._io, self, self._root)
            self.tile = Vcm.Varint(self._io, self, self._root)
            self.coder = KaitaiStream.resolve_enum(Vcm.Coder, self._io.read_u1())
            self.len_parameters = self._io.read_u1()
            if not self.len_parameters <= 64:
                raise kaitaistruct.ValidationGreaterThanError(64, self.len_parameters, self._io, u"/types/header/seq/7")
            self.parameters = self._io.read_bytes(self.len_parameters)
            self.num_tasks = self._io.read_u1()
            self.tasks = []
            for i in range(self.num_tasks):
                self.tasks.append(Vcm.TaskInfo(self._io, self, self._root))

            self.num_layers = self._io.read_u1()
            if not self.num_layers >= 1:
                raise kaitaistruct.ValidationLessThanError(1, self.num_layers, self._io, u"/types/header/seq/11")
            self.layers = []
            for i in range(self.num_layers):
                self.layers.append(Vcm.LayerInfo(self._io, self, self._root))

            self.num_groups = Vcm.Varint(self._io, self, self._root)
            self.groups = []
            for i in range(self.num_groups.value):
                self.groups.append(Vcm.Group(self._io, self, self._root))

            self.directory = Vcm.Directory(self.tile.value != 0, self._io, self, self._root)
            self.extra = self._io.read_bytes((self._io.size() - self._io.pos()) - 4)
            self.crc32 = self._io.read_u4le()


        def _fetch_instances(self):
            pass
            self.flags._fetch_instances()
            self.width._fetch_instances()
            self.height._fetch_instances()
            self.tile._fetch_instances()
            for i in range(len(self.tasks)):
                pass
                self.tasks[i]._fetch_instances()

            for i in range(len(self.layers)):
                pass
                self.layers[i]._fetch_instances()

            self.num_groups._fetch_instances()
            for i in range(len(self.groups)):
                pass
                self.groups[i]._fetch_instances()

            self.directory._fetch_instances()


    class LayerInfo(KaitaiStruct):
        def __init__(self, _io, _parent=None, _root=None):
            super(Vcm.LayerInfo, self).__init__(_io)
            self._parent = _parent
            self._root = _root
            self._read()

        def _read(self):
            self.layer = KaitaiStream.resolve_enum(Vcm.Layer, self._io.read_u1())
            self.rate_level = Vcm.Varint(self._io, self, self._root)


        def _fetch_instances(self):
            pass
            self.rate_level._fetch_instances()


    class Substream(KaitaiStruct):
        def __init__(self, index, _io, _parent=None, _root=None):
            super(Vcm.Substream, self).__init__(_io)
            self._parent = _parent
            self._root = _root
            self.index = index
            self._read()

        def _read(self):
            self.data = self._io.read_bytes(self.entry.length.value)


        def _fetch_instances(self):
            pass

        @property
        def entry(self):
            if hasattr(self, '_m_entry'):
                return self._m_entry

            self._m_entry = self._root.header.directory.entries[self.index]
            return getattr(self, '_m_entry', None)


    class TaskInfo(KaitaiStruct):
        def __init__(self, _io, _parent=None, _root=None):
            super(Vcm.TaskInfo, self).__init__(_io)
            self._parent = _parent
            self._root = _root
            self._read()

        def _read(self):
            self.task = KaitaiStream.resolve_enum(Vcm.Task, self._io.read_u1())
            self.layer = KaitaiStream.resolve_enum(Vcm.Layer, self._io.read_u1())


        def _fetch_instances(self):
            pass


    class Varint(KaitaiStruct):
        """§2, unsigned LEB128 in its shortest form, at most 8 bytes."""
        def __init__(self, _io, _parent=None, _root=None):
            super(Vcm.Varint, self).__init__(_io)
            self._parent = _parent
            self._root = _root
            self._read()

        def _read(self):
            self.groups = []
            i = 0
            while True:
                _ = Vcm.VarintGroup(self._io, self, self._root)
                self.groups.append(_)
                if (not (_.has_next)):
                    break
                i += 1


        def _fetch_instances(self):
            pass
            for i in range(len(self.groups)):
                pass
                self.groups[i]._fetch_instances()


        @property
        def last(self):
            if hasattr(self, '_m_last'):
                return self._m_last

            self._m_last = len(self.groups) - 1
            return getattr(self, '_m_last', None)

        @property
        def value(self):
            if hasattr(self, '_m_value'):
                return self._m_value

            self._m_value = ((((((self.groups[0].value + (self.groups[1].value << 7 if self.last >= 1 else 0)) + (self.groups[2].value << 14 if self.last >= 2 else 0)) + (self.groups[3].value << 21 if self.last >= 3 else 0)) + (self.groups[4].value << 28 if self.last >= 4 else 0)) + (self.groups[5].value << 35 if self.last >= 5 else 0)) + (self.groups[6].value << 42 if self.last >= 6 else 0)) + (self.groups[7].value << 49 if self.last >= 7 else 0)
            return getattr(self, '_m_value', None)


    class VarintGroup(KaitaiStruct):
        def __init__(self, _io, _parent=None, _root=None):
            super(Vcm.VarintGroup, self).__init__(_io)
            self._parent = _parent
            self._root = _root
            self._read()

        def _read(self):
            self.has_next = self._io.read_bits_int_be(1) != 0
            self.value = self._io.read_bits_int_be(7)


        def _fetch_instances(self):
            pass




meta:
  id: vcm
  title: vcmcodec picture, version 1
  file-extension: vcm
  license: CC0-1.0
  ks-version: "0.11"
  endian: le
  encoding: UTF-8
doc: |
  A picture for machines and people, in one file that is read in part.  This grammar follows
  vcm-1.md, which is the norm; section numbers below are those of the norm.  A grammar cannot say
  everything: checksums, canonical order, uniqueness and the sums of cells are left to the norm.
seq:
  - id: signature
    contents: [0x89, 0x56, 0x43, 0x4d, 0x0d, 0x0a, 0x1a, 0x0a]
    doc: §3.1
  - id: major
    type: u1
    valid: 1
    doc: §3.2
  - id: minor
    type: u1
  - id: header_length
    type: varint
    doc: §3.3, bytes behind this field up to the first substream
  - id: header
    type: header
    size: header_length.value
  - id: substreams
    type: substream(_index)
    repeat: expr
    repeat-expr: header.directory.num_entries.value
    doc: §5, back to back in the order of the directory
types:
  varint:
    doc: §2, unsigned LEB128 in its shortest form, at most 8 bytes
    seq:
      - id: groups
        type: varint_group
        repeat: until
        repeat-until: not _.has_next
    instances:
      last:
        value: groups.size - 1
      value:
        value: >-
          groups[0].value
          + (last >= 1 ? (groups[1].value << 7) : 0)
          + (last >= 2 ? (groups[2].value << 14) : 0)
          + (last >= 3 ? (groups[3].value << 21) : 0)
          + (last >= 4 ? (groups[4].value << 28) : 0)
          + (last >= 5 ? (groups[5].value << 35) : 0)
          + (last >= 6 ? (groups[6].value << 42) : 0)
          + (last >= 7 ? (groups[7].value << 49) : 0)
  varint_group:
    meta:
      bit-endian: be
    seq:
      - id: has_next
        type: b1
      - id: value
        type: b7
  header:
    seq:
      - id: profile
        type: u1
        enum: profile
        doc: §3.4
      - id: flags
        type: flags
        doc: §3.5
      - id: fingerprint
        size: 8
        doc: §3.6, first bytes of the SHA-256 of the model
      - id: width
        type: varint
        doc: §3.7, pixels
      - id: height
        type: varint
      - id: tile
        type: varint
        doc: §3.8, cells on a tile's side; 0 where the picture is not tiled
      - id: coder
        type: u1
        enum: coder
        doc: §3.9
      - id: len_parameters
        type: u1
        valid:
          max: 64
        doc: §3.10
      - id: parameters
        size: len_parameters
        doc: |
          Of scene: empty, or coded height and coded width as two varints, where the file is apart
          from the whole picture's (§6.1). Of the profiles of features (§6.2): u1 length and
          name of the split point, varint scaled height, varint scaled width, the profile's own.
      - id: num_tasks
        type: u1
        doc: §3.11
      - id: tasks
        type: task_info
        repeat: expr
        repeat-expr: num_tasks
      - id: num_layers
        type: u1
        valid:
          min: 1
        doc: §3.12
      - id: layers
        type: layer_info
        repeat: expr
        repeat-expr: num_layers
      - id: num_groups
        type: varint
        doc: §3.13
      - id: groups
        type: group
        repeat: expr
        repeat-expr: num_groups.value
      - id: directory
        type: directory(tile.value != 0)
        doc: §4
      - id: extra
        size: _io.size - _io.pos - 4
        doc: §3.14, empty in version 1.0
      - id: crc32
        type: u4
        doc: §3.15, of every byte of the file before it
  flags:
    meta:
      bit-endian: be
    seq:
      - id: reserved
        type: b6
        valid: 0
      - id: redacted
        type: b1
      - id: grey
        type: b1
  task_info:
    seq:
      - id: task
        type: u1
        enum: task
      - id: layer
        type: u1
        enum: layer
  layer_info:
    seq:
      - id: layer
        type: u1
        enum: layer
      - id: rate_level
        type: varint
        doc: hundredths, 0..10000
  group:
    seq:
      - id: id
        type: u1
      - id: score
        type: u1
        doc: 0 for none, otherwise 1 + score * 254
      - id: len_label
        type: u1
        valid:
          max: 64
      - id: label
        type: str
        size: len_label
      - id: box
        type: box
      - id: cells
        type: varint
  box:
    doc: in cells
    seq:
      - id: left
        type: varint
      - id: top
        type: varint
      - id: width
        type: varint
      - id: height
        type: varint
  directory:
    params:
      - id: is_tiled
        type: bool
    seq:
      - id: num_entries
        type: varint
      - id: entries
        type: entry(is_tiled)
        repeat: expr
        repeat-expr: num_entries.value
  entry:
    params:
      - id: is_tiled
        type: bool
    seq:
      - id: kind
        type: u1
        enum: kind
      - id: layer
        type: u1
        enum: layer
      - id: group
        type: u1
      - id: tile
        type: varint
        if: is_tiled
      - id: length
        type: varint
      - id: crc32
        type: u4
  substream:
    params:
      - id: index
        type: s4
    seq:
      - id: data
        size: entry.length.value
    instances:
      entry:
        value: _root.header.directory.entries[index]
enums:
  profile:
    1: scene
    2: pyramid
    3: bottleneck
    4: semantic
  coder:
    1: rans_16
    2: range_static
  layer:
    0: base
    1: mid
    2: full
  task:
    0: human
    1: detection
    2: classification
    3: segmentation
  kind:
    0x01: icc
    0x02: digest
    0x03: text
    0x80: group_map
    0x81: latent
    0x82: refinement

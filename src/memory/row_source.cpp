#include "memory/row_source.h"

#include <algorithm>
#include <cstring>

#include "core/checked.h"
#include "core/half.h"
#include "files/safetensors.h"
#include "files/safetensors_header.h"
#include "memory/engram_config.h"
#include "simd/rows.h"

namespace mneme {
namespace {

uint64_t next_random(uint64_t& state) {
  uint64_t z = state += 0x9E3779B97F4A7C15ull;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

// Random bits made into finite numbers of a sixteenth to an eighth, or into codes with such a scale.
void tame(RowFormat format, uint32_t head_dim, std::byte* row, uint32_t bytes) {
  switch (format) {
    case RowFormat::f32:
      for (uint32_t i = 0; i < head_dim; ++i) {
        uint32_t word = 0;
        std::memcpy(&word, row + 4 * i, 4);
        word = (word & 0x807FFFFFu) | 0x3D800000u;
        std::memcpy(row + 4 * i, &word, 4);
      }
      return;
    case RowFormat::bf16:
      for (uint32_t i = 0; i < head_dim; ++i) {
        uint16_t word = 0;
        std::memcpy(&word, row + 2 * i, 2);
        word = static_cast<uint16_t>((word & 0x807Fu) | 0x3D80u);
        std::memcpy(row + 2 * i, &word, 2);
      }
      return;
    case RowFormat::int8: {
      const float scale = 1.0f / 1024;
      std::memcpy(row + head_dim, &scale, 4);
      return;
    }
    case RowFormat::fp8_e4m3_e8m0:
      for (uint32_t i = 0; i < head_dim; ++i)  // all ones but the sign is NaN
        if ((row[i] & std::byte{0x7F}) == std::byte{0x7F}) row[i] ^= std::byte{1};
      std::memset(row + head_dim, 127 - 12, bytes - head_dim);
      return;
  }
}

std::string with_layer(const std::string& name, uint32_t layer) {
  std::string out = name;
  if (const size_t at = out.find("{layer}"); at != std::string::npos)
    out.replace(at, 7, std::to_string(layer));
  return out;
}

// One tensor, or weights with scales, and how its rows become records.
struct Piece {
  uint64_t first = 0, rows = 0;  // of the table
  uint64_t stored = 0;           // rows of the tensor; the rest is padding, all zero
  const TensorInfo* weight = nullptr;
  const TensorInfo* scale = nullptr;
  bool finished = false;  // the weight tensor holds records
  RowFormat format = RowFormat::f32;
};

const TensorInfo& tensor_named(const TensorSource& source, const std::string& name) {
  const TensorInfo* const info = source.find(name);
  require(info != nullptr, ErrorCode::not_found, "the checkpoint has no tensor \"{}\"", name);
  return *info;
}

std::string shape_text(const TensorInfo& info) {
  return fmt::format("{} [{}]", dtype_info(info.type).name, fmt::join(info.shape, ", "));
}

// What the tensors are, by type and shape.
void classify(Piece& piece, const EngramTableConfig& table) {
  const TensorInfo& w = *piece.weight;
  const uint64_t width = w.shape.size() == 2 ? w.shape[1] : 0, dim = table.head_dim;
  const bool bytes = w.type == DType::i8 || w.type == DType::u8;
  if (bytes && piece.scale == nullptr) {
    require(width == mneme::row_bytes(table.format, table.head_dim), ErrorCode::mismatch,
            "\"{}\" is {}, but records of {} have {} bytes", w.name, shape_text(w), to_string(table.format),
            mneme::row_bytes(table.format, table.head_dim));
    piece.finished = true;
    piece.format = table.format;
    return;
  }
  require(width == dim, ErrorCode::mismatch, "\"{}\" is {}, but rows of {} values are wanted", w.name,
          shape_text(w), dim);
  if (w.type == DType::f8_e4m3 || w.type == DType::i8) {
    const bool fp8 = w.type == DType::f8_e4m3;
    require(piece.scale != nullptr, ErrorCode::mismatch, "\"{}\" is {} and needs a tensor of scales", w.name,
            shape_text(w));
    const TensorInfo& s = *piece.scale;
    const std::vector<uint64_t> wanted =
        fp8 ? std::vector<uint64_t>{w.shape[0], dim / 32} : std::vector<uint64_t>{w.shape[0]};
    const bool type = fp8 ? s.type == DType::f8_e8m0 || s.type == DType::u8 : s.type == DType::f32;
    const bool column = !fp8 && s.shape == std::vector<uint64_t>{w.shape[0], 1};
    require(type && (s.shape == wanted || column) && (!fp8 || dim % 32 == 0), ErrorCode::mismatch,
            "\"{}\" is {}, but as scales of \"{}\" it must be {} [{}]", s.name, shape_text(s), w.name,
            fp8 ? "F8_E8M0" : "F32", fmt::join(wanted, ", "));
    piece.format = fp8 ? RowFormat::fp8_e4m3_e8m0 : RowFormat::int8;
    return;
  }
  require(w.type == DType::f32 || w.type == DType::bf16 || w.type == DType::f16, ErrorCode::unsupported,
          "\"{}\" is {}; rows can be F32, F16, BF16, F8_E4M3 and I8", w.name, shape_text(w));
  piece.format = w.type == DType::bf16 ? RowFormat::bf16 : RowFormat::f32;
}

std::vector<Piece> find_pieces(const EngramHash& hash, const TensorSource& source,
                               const RowTensorNames& names) {
  const bool each = names.weight.find("{layer}") != std::string::npos;
  std::vector<Piece> pieces;
  for (size_t i = 0; i < (each ? hash.layers() : 1); ++i) {
    const uint32_t id = hash.config().layer_ids[i];
    Piece piece;
    piece.first = each ? hash.first_row(i) : 0;
    piece.rows = each ? hash.layer_rows(i) : hash.rows();
    piece.weight = &tensor_named(source, with_layer(names.weight, id));
    if (!names.scale.empty()) piece.scale = &tensor_named(source, with_layer(names.scale, id));
    const uint64_t least = each ? hash.prime_sum(i) : hash.rows();
    piece.stored = piece.weight->shape.empty() ? 0 : piece.weight->shape[0];
    require(piece.stored >= least, ErrorCode::mismatch,
            "\"{}\" is {}, but {} rows are wanted; it belongs to another table", piece.weight->name,
            shape_text(*piece.weight), least);
    classify(piece, hash.config());
    pieces.push_back(piece);
  }
  return pieces;
}

// A record as the tensors have it, in piece.format.
void gather(const Piece& piece, Bytes weight, Bytes scale, uint64_t row, std::vector<std::byte>& record) {
  const uint64_t w = weight.size() / piece.stored, s = scale.empty() ? 0 : scale.size() / piece.stored;
  record.resize(w + s);
  std::memcpy(record.data(), weight.data() + row * w, w);
  if (s > 0) std::memcpy(record.data() + w, scale.data() + row * s, s);
}

void produce(const Piece& piece, const TensorSource& source, const EngramTableConfig& table, uint64_t first,
             uint64_t count, std::byte* out) {
  const uint32_t bytes = mneme::row_bytes(table.format, table.head_dim);
  const Bytes weight = source.data(*piece.weight), scale = piece.scale ? source.data(*piece.scale) : Bytes{};
  const bool half = piece.weight->type == DType::f16;
  std::vector<std::byte> record;
  std::vector<float> values(table.head_dim);
  for (uint64_t row = first; row < first + count; ++row, out += bytes) {
    if (row >= piece.stored) {
      std::memset(out, 0, bytes);
      continue;
    }
    gather(piece, weight, scale, row, record);
    if (piece.finished || (piece.format == table.format && !half)) {
      std::memcpy(out, record.data(), bytes);
      continue;
    }
    if (half) {
      for (uint32_t i = 0; i < table.head_dim; ++i) {
        uint16_t bits = 0;
        std::memcpy(&bits, record.data() + 2 * i, 2);
        values[i] = f16_to_f32(bits);
      }
    } else {
      decode_row(piece.format, record.data(), table.head_dim, values.data());
    }
    encode_row(table.format, values.data(), table.head_dim, out);
  }
}

// Where a tensor's bytes begin in the shard that has it.
std::pair<fs::path, uint64_t> place_of(const TensorSource& source, const TensorInfo& tensor) {
  for (const fs::path& path : source.paths()) {
    const MappedFile file(path, LoadMode::mmap);
    if (path.extension() != ".safetensors") continue;
    for (const SafetensorsEntry& entry : parse_safetensors_header(file.bytes(), path.string()))
      if (entry.info.name == tensor.name) return {path, entry.offset};
  }
  fail(ErrorCode::not_found, "no shard holds the tensor \"{}\"", tensor.name);
}

}  // namespace

RowProducer random_rows(const EngramHash& hash, uint64_t seed) {
  const EngramTableConfig& table = hash.config();
  const uint32_t bytes = mneme::row_bytes(table.format, table.head_dim);
  return [format = table.format, dim = table.head_dim, bytes, seed](uint64_t first, uint64_t count,
                                                                    std::byte* out) {
    for (uint64_t row = first; row < first + count; ++row, out += bytes) {
      uint64_t state = seed ^ (row * 0xD1342543DE82EF95ull + 0x2545F4914F6CDD1Dull);
      uint32_t at = 0;
      for (; at + 8 <= bytes; at += 8) {
        const uint64_t word = next_random(state);
        std::memcpy(out + at, &word, 8);
      }
      const uint64_t word = next_random(state);
      std::memcpy(out + at, &word, bytes - at);
      tame(format, dim, out, bytes);
    }
  };
}

RowProducer checkpoint_rows(const EngramHash& hash, const TensorSource& source, const RowTensorNames& names) {
  return [pieces = find_pieces(hash, source, names), &source, table = hash.config()](
             uint64_t first, uint64_t count, std::byte* out) {
    const uint32_t bytes = mneme::row_bytes(table.format, table.head_dim);
    for (const Piece& piece : pieces) {
      const uint64_t begin = std::max(first, piece.first),
                     end = std::min(first + count, piece.first + piece.rows);
      if (begin < end)
        produce(piece, source, table, begin - piece.first, end - begin, out + (begin - first) * bytes);
    }
  };
}

RowLayout checkpoint_layout(const EngramHash& hash, const fs::path& checkpoint, const RowTensorNames& names) {
  const auto source =
      fs::is_directory(checkpoint) ? open_safetensors_folder(checkpoint) : open_safetensors(checkpoint);
  const EngramTableConfig& table = hash.config();
  RowLayout layout;
  layout.path = checkpoint;
  for (const Piece& piece : find_pieces(hash, *source, names)) {
    require(piece.finished || (piece.format == table.format && piece.weight->type != DType::f16),
            ErrorCode::unsupported, "\"{}\" is {}; rows of {} can only be read in place as {}",
            piece.weight->name, shape_text(*piece.weight), to_string(table.format), to_string(table.format));
    require(piece.stored >= piece.rows, ErrorCode::mismatch,
            "\"{}\" has {} rows, and {} with padding are wanted; build a pack from it", piece.weight->name,
            piece.stored, piece.rows);
    RowSegment segment{piece.rows, {}};
    for (const TensorInfo* tensor : {piece.weight, piece.scale}) {
      if (tensor == nullptr) continue;
      const auto [path, offset] = place_of(*source, *tensor);
      segment.parts.push_back({path, offset, static_cast<uint32_t>(tensor->bytes / piece.stored)});
    }
    layout.segments.push_back(std::move(segment));
  }
  return layout;
}

}  // namespace mneme

// GGUF v2/v3 files: metadata (typed key-value pairs) and tensors.
//
//   file    "GGUF" | u32 version | u64 tensors | u64 pairs | pairs | tensor infos | padding | tensor data
//   pair    string key, u32 type, value
//   info    string name, u32 rank, u64 dims[rank] (innermost first), u32 type, u64 offset
//   string  u64 length, bytes
//
// Offsets count from the start of the tensor data; they and it are multiples of general.alignment (32 unless
// the metadata says otherwise). Every count and size is checked against the file before anything is
// allocated; see GgufFile::open for what is refused. Tests: tests/files/gguf_*_test.cpp,
// tests/fuzz/gguf_fuzz.
#pragma once
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "files/tensor_source.h"

namespace mneme {

/// A metadata value. Arrays of numbers are widened to i64, u64 or f64; arrays of arrays are refused.
using GgufValue =
    std::variant<uint64_t, int64_t, double, bool, std::string, std::vector<uint64_t>, std::vector<int64_t>,
                 std::vector<double>, std::vector<bool>, std::vector<std::string>>;

class GgufMetadata {
 public:
  bool has(std::string_view key) const { return values_.find(key) != values_.end(); }
  const GgufValue* find(std::string_view key) const;

  // Typed look-ups convert between integer widths and signs when the value fits, and integers to floats. They
  // throw Error(corrupt) when the value has another type or does not fit; get_* without a default throws
  // Error(corrupt) when the key is missing.
  std::string get_string(std::string_view key) const;
  std::string get_string(std::string_view key, std::string_view fallback) const;
  uint64_t get_uint(std::string_view key) const;
  uint64_t get_uint(std::string_view key, uint64_t fallback) const;
  double get_float(std::string_view key) const;
  double get_float(std::string_view key, double fallback) const;
  bool get_bool(std::string_view key, bool fallback) const;
  std::vector<std::string> get_strings(std::string_view key) const;  // empty if missing
  /// The same without a copy (a vocabulary has 10^5 strings); nullptr if missing.
  const std::vector<std::string>* find_strings(std::string_view key) const;
  std::vector<int64_t> get_ints(
      std::string_view key) const;  // empty if missing; also from bool and uint arrays
  std::vector<double> get_floats(std::string_view key) const;  // empty if missing

  void set(std::string key, GgufValue value) { values_.insert_or_assign(std::move(key), std::move(value)); }
  void erase(const std::string& key) { values_.erase(key); }
  const std::map<std::string, GgufValue, std::less<>>& values() const { return values_; }

 private:
  std::map<std::string, GgufValue, std::less<>> values_;
};

class GgufFile : public TensorSource {
 public:
  /// Opens a file, and its siblings if it is one part of a split ("NAME-00001-of-00003.gguf"); the metadata
  /// is then that of the first part. Throws Error:
  ///   corrupt      truncated or contradictory, naming file, field and byte: counts, lengths, dimensions and
  ///                offsets beyond the file or 64 bits; zero dimensions, more than four; alignment that is no
  ///                power of two; empty, duplicate or NUL-carrying keys and names; overlapping tensors
  ///   unsupported  version, big-endian, arrays of arrays, a tensor type this version cannot read, by name
  ///   not_found    the file or a part of the split;  mismatch: parts of different splits;  io
  static std::unique_ptr<GgufFile> open(const fs::path& path, LoadMode mode = LoadMode::mmap);
  /// Parses a buffer that the caller keeps alive (tests, fuzzing).
  static std::unique_ptr<GgufFile> parse(Bytes bytes);

  virtual const GgufMetadata& metadata() const = 0;
  virtual uint32_t version() const = 0;
};

/// A tensor to be written: its data is produced on demand so that a model never has to be in memory twice.
struct GgufTensorToWrite {
  TensorInfo info;
  std::function<void(AtomicFile&)> write;  // must write exactly info.bytes
};

/// Writes a GGUF v3 file atomically (32-byte alignment). Integers are stored with 32 bits where they fit and
/// floats as F32, the widths that other readers of model metadata expect. Throws Error(io |
/// invalid_argument).
void write_gguf(const fs::path& path, const GgufMetadata& metadata,
                const std::vector<GgufTensorToWrite>& tensors,
                const std::function<void(uint64_t done, uint64_t total)>& progress = {});

}  // namespace mneme

// A writer of small HDF5 files, as much as NIR graphs need: groups, scalars, arrays, texts and attributes.
//
// The HDF5 library (Debian: libhdf5-dev) is loaded when the first file is made, not when the program starts:
// it brings libcurl and some twenty more libraries along, and every other verb would pay for them at each
// start.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mneme {

/// Builds a file in memory. Paths are absolute ("/node/nodes/q"); groups on the way are made. Not
/// thread-safe, nor is the HDF5 library: one writer at a time in a process. Every function throws
/// Error(internal) with the path if HDF5 refuses.
class Hdf5Writer {
 public:
  /// Throws Error(not_found) if the HDF5 library cannot be loaded, with the name of the package.
  Hdf5Writer();
  ~Hdf5Writer();
  Hdf5Writer(const Hdf5Writer&) = delete;
  Hdf5Writer& operator=(const Hdf5Writer&) = delete;

  void group(const std::string& path);
  /// Datasets. `shape` [] is a scalar; its product is the number of values. Texts are UTF-8 of variable
  /// length.
  void text(const std::string& path, std::string_view value);
  void texts(const std::string& path, std::span<const std::string> values,
             const std::vector<uint64_t>& shape);
  void array(const std::string& path, std::span<const float> values, const std::vector<uint64_t>& shape);
  void array(const std::string& path, std::span<const double> values, const std::vector<uint64_t>& shape);
  void array(const std::string& path, std::span<const int64_t> values, const std::vector<uint64_t>& shape);
  /// Attributes of a group; "/" is the root.
  void text_attribute(const std::string& path, const std::string& name, std::string_view value);
  void attribute(const std::string& path, const std::string& name, double value);
  void attribute(const std::string& path, const std::string& name, int64_t value);

  /// The content of the file. Call once, at the end.
  std::string finish();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mneme

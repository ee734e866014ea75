#include "eval/hdf5_writer.h"

#include <dlfcn.h>
#include <hdf5.h>

#include <numeric>

#include "core/fail.h"

namespace mneme {
namespace {

constexpr unsigned kTruncate = 2;  // H5F_ACC_TRUNC, whose macro would link the library

// The functions of the library that are used, found by name.
class Library {
 public:
  static const Library& get() {
    static const Library library;
    return library;
  }

#define MNEME_HDF5(name) decltype(&::name) name = function<decltype(&::name)>(#name)
  MNEME_HDF5(H5open);
  MNEME_HDF5(H5Eset_auto2);
  MNEME_HDF5(H5Pcreate);
  MNEME_HDF5(H5Pset_fapl_core);
  MNEME_HDF5(H5Pset_create_intermediate_group);
  MNEME_HDF5(H5Pclose);
  MNEME_HDF5(H5Fcreate);
  MNEME_HDF5(H5Fflush);
  MNEME_HDF5(H5Fget_file_image);
  MNEME_HDF5(H5Fclose);
  MNEME_HDF5(H5Gcreate2);
  MNEME_HDF5(H5Gclose);
  MNEME_HDF5(H5Oopen);
  MNEME_HDF5(H5Oclose);
  MNEME_HDF5(H5Screate);
  MNEME_HDF5(H5Screate_simple);
  MNEME_HDF5(H5Sclose);
  MNEME_HDF5(H5Tcopy);
  MNEME_HDF5(H5Tset_size);
  MNEME_HDF5(H5Tset_cset);
  MNEME_HDF5(H5Tclose);
  MNEME_HDF5(H5Dcreate2);
  MNEME_HDF5(H5Dwrite);
  MNEME_HDF5(H5Dclose);
  MNEME_HDF5(H5Acreate2);
  MNEME_HDF5(H5Awrite);
  MNEME_HDF5(H5Aclose);
#undef MNEME_HDF5

  /// What the macros of hdf5.h such as H5T_C_S1 stand for, once the library is open.
  hid_t value(const char* name) const { return *static_cast<hid_t*>(symbol(name)); }

 private:
  Library() {
    require(H5open() >= 0, ErrorCode::internal, "the HDF5 library does not start");
    H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);  // errors are ours to report
  }
  static void* handle() {
    static void* const opened = [] {
      for (const char* name : {"libhdf5_serial.so.103", "libhdf5.so.103", "libhdf5_serial.so.310",
                               "libhdf5.so.310", "libhdf5_serial.so", "libhdf5.so"})
        if (void* found = dlopen(name, RTLD_NOW | RTLD_LOCAL)) return found;
      return static_cast<void*>(nullptr);
    }();
    require(opened != nullptr, ErrorCode::not_found,
            "NIR files need the HDF5 library, which is not installed (Debian: libhdf5-dev)");
    return opened;
  }
  static void* symbol(const char* name) {
    void* found = dlsym(handle(), name);
    require(found != nullptr, ErrorCode::not_found, "the HDF5 library here has no {}; it is too old", name);
    return found;
  }
  template <class F>
  static F function(const char* name) {
    return reinterpret_cast<F>(symbol(name));
  }
};

void check(bool fine, const std::string& path) {
  require(fine, ErrorCode::internal, "HDF5 cannot write {}", path);
}

/// An id of the library that is given back at the end.
class Id {
 public:
  Id(hid_t id, herr_t (*close)(hid_t), const std::string& what) : id_(id), close_(close) {
    check(id >= 0, what);
  }
  ~Id() { close_(id_); }
  Id(const Id&) = delete;
  Id& operator=(const Id&) = delete;
  operator hid_t() const { return id_; }

 private:
  hid_t id_;
  herr_t (*close_)(hid_t);
};

}  // namespace

struct Hdf5Writer::Impl {
  const Library& h = Library::get();
  hid_t file = -1, links = -1, string_type = -1;

  ~Impl() {
    if (string_type >= 0) h.H5Tclose(string_type);
    if (links >= 0) h.H5Pclose(links);
    if (file >= 0) h.H5Fclose(file);
  }

  Id space(const std::vector<uint64_t>& shape, const std::string& path) const {
    const std::vector<hsize_t> sizes(shape.begin(), shape.end());
    return {shape.empty() ? h.H5Screate(H5S_SCALAR)
                          : h.H5Screate_simple(static_cast<int>(sizes.size()), sizes.data(), nullptr),
            h.H5Sclose, path};
  }
  void dataset(const std::string& path, hid_t type, const void* values, size_t count,
               const std::vector<uint64_t>& shape) const {
    const uint64_t product = std::accumulate(shape.begin(), shape.end(), uint64_t{1}, std::multiplies<>());
    require(product == count, ErrorCode::internal, "{}: {} values for a shape of {}", path, count, product);
    const Id where = space(shape, path);
    const Id data(h.H5Dcreate2(file, path.c_str(), type, where, links, H5P_DEFAULT, H5P_DEFAULT), h.H5Dclose,
                  path);
    check(count == 0 || h.H5Dwrite(data, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0, path);
  }
  void attribute(const std::string& path, const std::string& name, hid_t type, const void* value) const {
    const Id object(h.H5Oopen(file, path.c_str(), H5P_DEFAULT), h.H5Oclose, path);
    const Id where = space({}, path);
    const Id made(h.H5Acreate2(object, name.c_str(), type, where, H5P_DEFAULT, H5P_DEFAULT), h.H5Aclose,
                  path);
    check(h.H5Awrite(made, type, value) >= 0, path);
  }
};

Hdf5Writer::Hdf5Writer() : impl_(std::make_unique<Impl>()) {
  const Library& h = impl_->h;
  const Id access(h.H5Pcreate(h.value("H5P_CLS_FILE_ACCESS_ID_g")), h.H5Pclose, "/");
  check(h.H5Pset_fapl_core(access, size_t{1} << 20, false) >= 0, "/");
  impl_->links = h.H5Pcreate(h.value("H5P_CLS_LINK_CREATE_ID_g"));
  check(impl_->links >= 0 && h.H5Pset_create_intermediate_group(impl_->links, 1) >= 0, "/");
  impl_->string_type = h.H5Tcopy(h.value("H5T_C_S1_g"));
  check(h.H5Tset_size(impl_->string_type, H5T_VARIABLE) >= 0 &&
            h.H5Tset_cset(impl_->string_type, H5T_CSET_UTF8) >= 0,
        "/");
  impl_->file = h.H5Fcreate("mneme.nir", kTruncate, H5P_DEFAULT, access);  // in memory; the name is nowhere
  check(impl_->file >= 0, "/");
}

Hdf5Writer::~Hdf5Writer() = default;

void Hdf5Writer::group(const std::string& path) {
  const Id made(impl_->h.H5Gcreate2(impl_->file, path.c_str(), impl_->links, H5P_DEFAULT, H5P_DEFAULT),
                impl_->h.H5Gclose, path);
}

void Hdf5Writer::text(const std::string& path, std::string_view value) {
  const std::string copy(value);
  texts(path, {&copy, 1}, {});
}

void Hdf5Writer::texts(const std::string& path, std::span<const std::string> values,
                       const std::vector<uint64_t>& shape) {
  std::vector<const char*> pointers;
  for (const std::string& value : values) pointers.push_back(value.c_str());
  impl_->dataset(path, impl_->string_type, pointers.data(), pointers.size(), shape);
}

void Hdf5Writer::array(const std::string& path, std::span<const float> values,
                       const std::vector<uint64_t>& shape) {
  impl_->dataset(path, impl_->h.value("H5T_NATIVE_FLOAT_g"), values.data(), values.size(), shape);
}
void Hdf5Writer::array(const std::string& path, std::span<const double> values,
                       const std::vector<uint64_t>& shape) {
  impl_->dataset(path, impl_->h.value("H5T_NATIVE_DOUBLE_g"), values.data(), values.size(), shape);
}
void Hdf5Writer::array(const std::string& path, std::span<const int64_t> values,
                       const std::vector<uint64_t>& shape) {
  impl_->dataset(path, impl_->h.value("H5T_NATIVE_INT64_g"), values.data(), values.size(), shape);
}

void Hdf5Writer::text_attribute(const std::string& path, const std::string& name, std::string_view value) {
  const std::string copy(value);
  const char* pointer = copy.c_str();
  impl_->attribute(path, name, impl_->string_type, &pointer);
}
void Hdf5Writer::attribute(const std::string& path, const std::string& name, double value) {
  impl_->attribute(path, name, impl_->h.value("H5T_NATIVE_DOUBLE_g"), &value);
}
void Hdf5Writer::attribute(const std::string& path, const std::string& name, int64_t value) {
  impl_->attribute(path, name, impl_->h.value("H5T_NATIVE_INT64_g"), &value);
}

std::string Hdf5Writer::finish() {
  const Library& h = impl_->h;
  check(h.H5Fflush(impl_->file, H5F_SCOPE_LOCAL) >= 0, "/");
  const ssize_t size = h.H5Fget_file_image(impl_->file, nullptr, 0);
  check(size > 0, "/");
  std::string content(static_cast<size_t>(size), '\0');
  check(h.H5Fget_file_image(impl_->file, content.data(), content.size()) == size, "/");
  return content;
}

}  // namespace mneme

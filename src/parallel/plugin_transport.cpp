#include "parallel/plugin_transport.h"

#include <dlfcn.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <cstring>

#include "core/fail.h"
#include "parallel/transport_plugin.h"

namespace mneme {
namespace {

constexpr uint32_t kMostRanks = 4096;

uint32_t launcher_number(const char* name, const std::string& text) {
  uint32_t value = 0;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
  require(
      problem == std::errc() && end == text.data() + text.size() && value <= kMostRanks,
      ErrorCode::invalid_argument,
      "the environment says {}=\"{}\", which is no number up to {}; mpirun sets it, and nobody else should",
      name, text, kMostRanks);
  return value;
}

// Closes a library that turns out to be of no use; one that was joined stays, because MPI cannot be unloaded.
struct LibraryCloser {
  void operator()(void* library) const { ::dlclose(library); }
};

class PluginTransport final : public Transport {
 public:
  explicit PluginTransport(const MnemeTransportV1& api) : api_(api) {
    check(api_.open(&rank_, &size_), "joining the other processes");
  }
  uint32_t rank() const override { return rank_; }
  uint32_t size() const override { return size_; }
  void send(uint32_t to, MessageBytes message) override {
    check(api_.send(to, message.data(), message.size()), "sending");
  }
  std::optional<Message> poll() override {
    Message message;
    void* bytes = nullptr;
    uint64_t size = 0;
    check(api_.poll(&message.from, &bytes, &size), "receiving");
    if (bytes == nullptr) return {};
    const std::unique_ptr<void, void (*)(void*)> owned(bytes, api_.release);
    message.bytes.resize(size);
    if (size > 0) std::memcpy(message.bytes.data(), bytes, size);
    return message;
  }
  void close() override { check(api_.close(), "leaving"); }

 private:
  static void check(const char* problem, const char* what) {
    require(problem == nullptr, ErrorCode::network, "MPI: {}: {}", what, problem == nullptr ? "" : problem);
  }
  const MnemeTransportV1& api_;
  uint32_t rank_ = 0, size_ = 1;
};

}  // namespace

std::optional<LaunchedAs> launched_as(
    const std::function<std::optional<std::string>(const char* name)>& variable) {
  struct Names {
    const char *rank, *size, *local;
  };
  for (const Names& names :
       {Names{"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE"},
        Names{"PMI_RANK", "PMI_SIZE", "MPI_LOCALNRANKS"}}) {
    const auto size = variable(names.size), rank = variable(names.rank), local = variable(names.local);
    if (!size) continue;
    LaunchedAs out;
    out.size = launcher_number(names.size, *size);
    if (out.size <= 1) return {};
    require(rank.has_value(), ErrorCode::invalid_argument, "the environment sets {}, but not {}", names.size,
            names.rank);
    out.rank = launcher_number(names.rank, *rank);
    require(out.rank < out.size, ErrorCode::invalid_argument, "the environment says rank {} of {}", out.rank,
            out.size);
    if (local) out.on_this_machine = std::max(1u, std::min(out.size, launcher_number(names.local, *local)));
    return out;
  }
  return {};
}

std::optional<LaunchedAs> launched_as() {
  return launched_as([](const char* name) -> std::optional<std::string> {
    const char* value = std::getenv(name);
    return value == nullptr ? std::nullopt : std::optional<std::string>(value);
  });
}

std::unique_ptr<Transport> open_plugin(const fs::path& library) {
  std::error_code error;
  require(fs::is_regular_file(library, error), ErrorCode::not_found, "there is no library {}",
          library.string());
  // Global, because Open MPI loads its own parts later, which look for its symbols.
  std::unique_ptr<void, LibraryCloser> handle(::dlopen(library.c_str(), RTLD_NOW | RTLD_GLOBAL));
  if (handle == nullptr) {
    const char* why = ::dlerror();
    fail(ErrorCode::unsupported, "{} cannot be loaded: {}", library.string(), why == nullptr ? "" : why);
  }
  using Entry = const MnemeTransportV1* (*)();
  const auto entry = reinterpret_cast<Entry>(::dlsym(handle.get(), "mneme_transport_v1"));
  require(entry != nullptr, ErrorCode::unsupported,
          "{} is no transport of this version of Mneme; build or install both from the same sources",
          library.string());
  auto transport = std::make_unique<PluginTransport>(*entry());
  static_cast<void>(handle.release());
  return transport;
}

fs::path find_mpi_plugin(uint32_t processes) {
  std::error_code error;
  const fs::path folder = fs::read_symlink("/proc/self/exe", error).parent_path();
  for (const fs::path& place : {folder, (folder / MNEME_PLUGIN_FOLDER).lexically_normal()})
    if (fs::is_regular_file(place / "libmneme_mpi.so", error)) return place / "libmneme_mpi.so";
  fail(ErrorCode::not_found,
       "this is one of {} processes of mpirun, but libmneme_mpi.so, which reaches the others, is not in {}; "
       "build Mneme where libopenmpi-dev is installed, or start it without mpirun",
       processes, folder.string());
}

}  // namespace mneme

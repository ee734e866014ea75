// libmneme_mpi.so: the transport over MPI (src/parallel/transport_plugin.h). Nothing else of Mneme is in it,
// and nothing else of Mneme links MPI.
//
// All messages go over a copy of MPI_COMM_WORLD with one tag. Nothing waits: a send is an MPI_Isend whose
// bytes are kept until it is done, and a message is found by MPI_Improbe and received by MPI_Imrecv, so that
// a process which dies in the middle of a large message leaves the others free to notice. One lock is around
// every call, which is what MPI_THREAD_SERIALIZED asks for.
#include <mpi.h>

#include <climits>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <exception>
#include <list>
#include <mutex>
#include <new>
#include <vector>

#include "parallel/transport_plugin.h"

namespace {

constexpr int kTag = 1;

struct Sending {
  MPI_Request request = MPI_REQUEST_NULL;
  std::vector<char> bytes;
};
struct Receiving {
  MPI_Request request = MPI_REQUEST_NULL;
  void* bytes = nullptr;
  uint64_t size = 0;
};

struct Connection {
  std::mutex mutex;
  MPI_Comm comm = MPI_COMM_NULL;
  std::list<Sending> sending;
  std::vector<std::deque<Receiving>> receiving;  // [rank], in the order they were sent
  size_t turn = 0;                               // whose messages are looked at first
};

Connection& connection() {
  static Connection one;
  return one;
}

// What went wrong, in storage of its own: there may be no memory left to say it with.
thread_local char t_problem[MPI_MAX_ERROR_STRING + 64];

const char* problem_of(const char* call, int code) noexcept {
  char text[MPI_MAX_ERROR_STRING] = {};
  int size = 0;
  MPI_Error_string(code, text, &size);
  std::snprintf(t_problem, sizeof t_problem, "%s: %s", call, text);
  return t_problem;
}

/// Runs a function of the transport: no exception may cross a border of C.
template <class Function>
const char* without_exceptions(const Function& function) noexcept {
  try {
    return function();
  } catch (const std::bad_alloc&) {
    return "out of memory";
  } catch (const std::exception& error) {
    std::snprintf(t_problem, sizeof t_problem, "%s", error.what());
    return t_problem;
  }
}

/// Lets go of what has been sent.
const char* drop_sent(Connection& c) {
  for (auto at = c.sending.begin(); at != c.sending.end();) {
    int done = 0;
    const int code = MPI_Test(&at->request, &done, MPI_STATUS_IGNORE);
    if (code != MPI_SUCCESS) return problem_of("MPI_Test", code);
    at = done != 0 ? c.sending.erase(at) : std::next(at);
  }
  return nullptr;
}

const char* open_world(uint32_t* rank, uint32_t* size) {
  // Mneme has handlers of its own; with this Open MPI does not try to put its stack printer beside them.
  ::setenv("OMPI_MCA_opal_signal", "6", 0);
  int started = 0, level = MPI_THREAD_SINGLE;
  MPI_Initialized(&started);
  if (started != 0) return "MPI was started already";
  int code = MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &level);
  if (code != MPI_SUCCESS) return "MPI_Init_thread failed";
  if (level < MPI_THREAD_SERIALIZED) return "this MPI was built without threads";
  Connection& c = connection();
  code = MPI_Comm_dup(MPI_COMM_WORLD, &c.comm);
  if (code != MPI_SUCCESS) return problem_of("MPI_Comm_dup", code);
  MPI_Comm_set_errhandler(c.comm, MPI_ERRORS_RETURN);
  int own = 0, all = 1;
  MPI_Comm_rank(c.comm, &own);
  MPI_Comm_size(c.comm, &all);
  *rank = static_cast<uint32_t>(own);
  *size = static_cast<uint32_t>(all);
  c.receiving.resize(*size);
  return nullptr;
}

const char* send_message(uint32_t to, const void* bytes, uint64_t size) {
  if (size > INT_MAX) return "a message of more than 2 GiB";
  std::list<Sending> made(1);
  made.front().bytes.assign(static_cast<const char*>(bytes), static_cast<const char*>(bytes) + size);
  Connection& c = connection();
  const std::lock_guard lock(c.mutex);
  c.sending.splice(c.sending.end(), made);
  Sending& one = c.sending.back();
  const int code = MPI_Isend(one.bytes.data(), static_cast<int>(size), MPI_BYTE, static_cast<int>(to), kTag,
                             c.comm, &one.request);
  if (code != MPI_SUCCESS) {
    c.sending.pop_back();
    return problem_of("MPI_Isend", code);
  }
  return drop_sent(c);
}

/// Begins to receive everything that has been announced.
const char* accept_announced(Connection& c) {
  for (;;) {
    int found = 0, size = 0;
    MPI_Message message = MPI_MESSAGE_NULL;
    MPI_Status status;
    int code = MPI_Improbe(MPI_ANY_SOURCE, kTag, c.comm, &found, &message, &status);
    if (code != MPI_SUCCESS) return problem_of("MPI_Improbe", code);
    if (found == 0) return nullptr;
    MPI_Get_count(&status, MPI_BYTE, &size);
    if (size < 0) return "a message of more than 2 GiB has come";
    auto& waiting = c.receiving.at(static_cast<size_t>(status.MPI_SOURCE));
    Receiving& one = waiting.emplace_back();  // has its place before MPI writes to its bytes
    one.size = static_cast<uint64_t>(size);
    one.bytes = std::malloc(one.size + 1);
    if (one.bytes != nullptr) code = MPI_Imrecv(one.bytes, size, MPI_BYTE, &message, &one.request);
    if (one.bytes != nullptr && code == MPI_SUCCESS) continue;
    const bool memory = one.bytes == nullptr;
    std::free(one.bytes);
    waiting.pop_back();
    return memory ? "out of memory for a message" : problem_of("MPI_Imrecv", code);
  }
}

const char* poll_messages(uint32_t* from, void** bytes, uint64_t* size) {
  *bytes = nullptr;
  Connection& c = connection();
  const std::lock_guard lock(c.mutex);
  if (const char* failed = drop_sent(c)) return failed;
  if (const char* failed = accept_announced(c)) return failed;
  for (size_t i = 0; i < c.receiving.size(); ++i) {
    const size_t source = (c.turn + i) % c.receiving.size();
    auto& waiting = c.receiving[source];
    if (waiting.empty()) continue;
    int done = 0;
    const int code = MPI_Test(&waiting.front().request, &done, MPI_STATUS_IGNORE);
    if (code != MPI_SUCCESS) return problem_of("MPI_Test", code);
    if (done == 0) continue;
    *from = static_cast<uint32_t>(source);
    *bytes = waiting.front().bytes;
    *size = waiting.front().size;
    waiting.pop_front();
    c.turn = source + 1;
    return nullptr;
  }
  return nullptr;
}

void release_message(void* bytes) {
  std::free(bytes);
}

const char* close_world() {
  Connection& c = connection();
  const std::lock_guard lock(c.mutex);
  for (Sending& one : c.sending) MPI_Wait(&one.request, MPI_STATUS_IGNORE);
  c.sending.clear();
  for (auto& waiting : c.receiving)
    for (Receiving& one : waiting) {
      MPI_Wait(&one.request, MPI_STATUS_IGNORE);
      std::free(one.bytes);
    }
  c.receiving.clear();
  MPI_Comm_free(&c.comm);
  const int code = MPI_Finalize();
  return code == MPI_SUCCESS ? nullptr : "MPI_Finalize failed";
}

constexpr MnemeTransportV1 kTransport{
    [](uint32_t* rank, uint32_t* size) { return without_exceptions([&] { return open_world(rank, size); }); },
    [](uint32_t to, const void* bytes, uint64_t size) {
      return without_exceptions([&] { return send_message(to, bytes, size); });
    },
    [](uint32_t* from, void** bytes, uint64_t* size) {
      return without_exceptions([&] { return poll_messages(from, bytes, size); });
    },
    release_message,
    [] { return without_exceptions(close_world); },
};

}  // namespace

extern "C" __attribute__((visibility("default"))) const MnemeTransportV1* mneme_transport_v1() {
  return &kTransport;
}

// One file from the network to the disk, whatever happens on the way: cut connections, servers that forget
// ranges, wrong bytes, full disks, Ctrl-C, power cuts.
//
//   TARGET.part        what has arrived; grows in place, so that every received byte survives
//   TARGET.part.json   {"identity"}: which content the part belongs to (SHA-256 or ETag); without it, or when
//   the
//                      host now has another, the part is worthless and the file is fetched from the start
//   TARGET             appears by rename, after size and SHA-256 have been checked
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "cli/http_client.h"

namespace mneme::cli {

struct DownloadRequest {
  Url url;
  std::filesystem::path target;
  std::optional<uint64_t> bytes;  // if the host's listing told
  std::string sha256;             // lower-case hex, if the host's listing told
  int retries = 6;                // attempts in a row that bring no byte before giving up
  HttpOptions http;
  std::function<void(uint64_t done, uint64_t total)> progress = {};  // total 0: unknown
  std::function<void(const std::string& what)> on_retry = {};        // for a message
};

struct DownloadResult {
  uint64_t bytes = 0;
  bool verified = false;  // SHA-256 compared (otherwise only the size)
  bool was_there = false;
};

/// Throws Error: network (the host refused, or retries are used up; the part is kept), corrupt (wrong
/// content; the part is removed), io (disk full: the part is removed; other write errors), cancelled (the
/// part is kept), limit (another process is fetching the same file).
DownloadResult download(const DownloadRequest& request);

}  // namespace mneme::cli

// One HTTP(S) GET with redirects, a byte range, a token that is sent to its own host only, and a cancel token
// that takes effect also while nothing arrives. Retrying and resuming are the business of download.h.
#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "mneme/session.h"

namespace mneme::cli {

struct Url {
  std::string scheme;  // "http" or "https"
  std::string host;    // with the port if one was given
  std::string path;    // begins with '/', query included, percent-encoded
  std::string origin() const { return scheme + "://" + host; }
  std::string text() const { return origin() + path; }
};
/// Throws Error(invalid_argument) unless it is http(s)://HOST[:PORT][/PATH] without user name.
Url parse_url(std::string_view text);
/// What a Location header means at `base`. Throws Error(network) for what is not HTTP.
Url resolve_url(const Url& base, std::string_view location);
/// Percent-encodes everything but unreserved characters and '/'.
std::string encode_path(std::string_view path);

struct HttpOptions {
  std::string token;         // sent as a bearer token ...
  std::string token_origin;  // ... to this origin only, never to where it redirects
  double timeout_s = 30;     // without a byte; also for connecting
  const CancelToken* cancel = nullptr;
};

/// What is known when the head of the final answer has arrived.
struct HttpHead {
  int status = 0;
  std::string etag;                        // without quotes; X-Linked-Etag of any answer on the way wins
  bool linked = false;                     // it was X-Linked-Etag: for large files the SHA-256 of the content
  std::optional<uint64_t> linked_size;     // X-Linked-Size: size of the whole file
  std::optional<uint64_t> content_length;  // of this answer
  std::optional<uint64_t> range_start, range_total;  // Content-Range
  std::optional<double> retry_after_s;
  bool chunked = false;
};

/// How a request ended. `error` is empty if the whole answer arrived or a callback ended it.
struct HttpResult {
  std::optional<HttpHead> head;  // nothing if no answer came
  bool stopped = false;          // a callback returned false
  std::string error;             // a sentence part, e.g. "the connection was cut"
};

/// Sends GET, following at most 8 redirects. `on_head` sees the final answer before its body, and returns
/// whether to read it; `on_body` gets the body in pieces and returns whether to go on.
/// Throws Error: cancelled; network for a broken certificate, too many redirects or a downgrade to plain
/// HTTP.
HttpResult http_get(const Url& url, std::optional<uint64_t> range_from, const HttpOptions& options,
                    const std::function<bool(const HttpHead&)>& on_head,
                    const std::function<bool(std::string_view)>& on_body);

}  // namespace mneme::cli

#include "cli/http_client.h"

#include <httplib.h>

#include <charconv>
#include <chrono>
#include <csignal>
#include <exception>
#include <stop_token>
#include <thread>

#include "core/fail.h"
#include "mneme/version.h"

namespace mneme::cli {
namespace {

std::optional<uint64_t> number(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || text.empty()) return std::nullopt;
  return value;
}

std::string unquoted(std::string etag) {
  if (etag.starts_with("W/")) etag.erase(0, 2);
  if (etag.size() >= 2 && etag.front() == '"' && etag.back() == '"') etag = etag.substr(1, etag.size() - 2);
  return etag;
}

// "bytes 100-199/1000", "bytes */1000"
void read_content_range(std::string_view text, HttpHead& head) {
  if (!text.starts_with("bytes ")) return;
  text.remove_prefix(6);
  const size_t slash = text.find('/');
  if (slash == std::string_view::npos) return;
  head.range_total = number(text.substr(slash + 1));
  head.range_start = number(text.substr(0, text.find('-')));
}

void read_head(const httplib::Response& response, HttpHead& head) {
  const auto value = [&](const char* name) { return response.get_header_value(name); };
  head.status = response.status;
  if (const std::string etag = unquoted(value("X-Linked-Etag")); !etag.empty()) {
    head.etag = etag;
    head.linked = true;
    head.linked_size = number(value("X-Linked-Size"));
  } else if (!head.linked) {
    head.etag = unquoted(value("ETag"));
  }
  head.content_length = number(value("Content-Length"));
  head.chunked = value("Transfer-Encoding") == "chunked";
  head.range_start = head.range_total = std::nullopt;
  read_content_range(value("Content-Range"), head);
  head.retry_after_s.reset();
  if (const auto seconds = number(value("Retry-After"))) head.retry_after_s = static_cast<double>(*seconds);
}

bool is_redirect(int status) {
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

std::string describe(httplib::Error error) {
  switch (error) {
    case httplib::Error::Connection:
      return "the host cannot be reached";
    case httplib::Error::ConnectionTimeout:
      return "the host does not answer";
    case httplib::Error::Read:
      return "the connection was cut or stalled";
    case httplib::Error::Write:
      return "the request could not be sent";
    case httplib::Error::SSLConnection:
      return "the secure connection could not be made";
    default:
      return "the transfer failed (" + httplib::to_string(error) + ")";
  }
}

/// While it lives, writing to a closed connection is an error of the call and not the end of the process.
class IgnoreBrokenPipe {
 public:
  IgnoreBrokenPipe() : before_(std::signal(SIGPIPE, SIG_IGN)) {}
  ~IgnoreBrokenPipe() { std::signal(SIGPIPE, before_); }
  IgnoreBrokenPipe(const IgnoreBrokenPipe&) = delete;
  IgnoreBrokenPipe& operator=(const IgnoreBrokenPipe&) = delete;

 private:
  void (*before_)(int);
};

/// Closes the client's connection when the cancel token is set, so that a blocked read ends.
std::jthread watch(httplib::Client& client, const CancelToken* cancel) {
  if (cancel == nullptr) return {};
  return std::jthread([&client, cancel](const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      if (cancel->cancelled()) client.stop();
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  });
}

httplib::Headers request_headers(const Url& url, std::optional<uint64_t> range_from,
                                 const HttpOptions& options) {
  httplib::Headers headers{{"User-Agent", std::string("mneme/") + kVersion}, {"Accept-Encoding", "identity"}};
  if (range_from) headers.emplace("Range", fmt::format("bytes={}-", *range_from));
  if (!options.token.empty() && url.origin() == options.token_origin)
    headers.emplace("Authorization", "Bearer " + options.token);
  return headers;
}

}  // namespace

Url parse_url(std::string_view text) {
  Url url;
  const size_t colon = text.find("://");
  const bool has_scheme = colon != std::string_view::npos;
  url.scheme = has_scheme ? text.substr(0, colon) : "";
  require(url.scheme == "http" || url.scheme == "https", ErrorCode::invalid_argument,
          "\"{}\" is not an address; give http://HOST or https://HOST", text);
  const std::string_view rest = text.substr(colon + 3);
  const size_t slash = std::min(rest.find_first_of("/?#"), rest.size());
  url.host = rest.substr(0, slash);
  std::string_view path = rest.substr(slash);
  path = path.substr(0, path.find('#'));
  url.path = path.starts_with('/') ? std::string(path) : "/" + std::string(path);
  const bool clean = url.text().find_first_of(" \r\n\t") == std::string::npos;
  require(!url.host.empty() && url.host.find('@') == std::string::npos && clean, ErrorCode::invalid_argument,
          "\"{}\" is not an address; give http://HOST or https://HOST", text);
  return url;
}

Url resolve_url(const Url& base, std::string_view location) {
  try {
    if (location.starts_with("//")) return parse_url(base.scheme + ":" + std::string(location));
    if (location.find("://") != std::string_view::npos) return parse_url(location);
    if (location.starts_with('/')) return parse_url(base.origin() + std::string(location));
  } catch (const Error&) {
    fail(ErrorCode::network, "{} redirects to something that is not an address", base.origin());
  }
  require(!location.empty(), ErrorCode::network, "{} redirects to nowhere", base.origin());
  const std::string folder = base.path.substr(0, base.path.substr(0, base.path.find('?')).rfind('/') + 1);
  return parse_url(base.origin() + folder + std::string(location));
}

std::string encode_path(std::string_view path) {
  std::string out;
  for (const unsigned char c : path) {
    const bool plain = std::isalnum(c) != 0 ||
                       std::string_view("-_.~/").find(static_cast<char>(c)) != std::string_view::npos;
    out += plain ? std::string(1, static_cast<char>(c)) : fmt::format("%{:02X}", c);
  }
  return out;
}

HttpResult http_get(const Url& start, std::optional<uint64_t> range_from, const HttpOptions& options,
                    const std::function<bool(const HttpHead&)>& on_head,
                    const std::function<bool(std::string_view)>& on_body) {
  const IgnoreBrokenPipe guard;
  const auto timeout =
      std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::duration<double>(options.timeout_s));
  HttpResult result;
  HttpHead head;  // collects X-Linked-* along the redirects
  Url url = start;
  for (int hop = 0; hop <= 8; ++hop) {
    httplib::Client client(url.origin());
    client.set_connection_timeout(timeout);
    client.set_read_timeout(timeout);
    client.set_write_timeout(timeout);
    client.set_url_encode(false);
    std::string location;
    std::exception_ptr thrown;  // exceptions of the callbacks do not pass through the HTTP library
    const auto guarded = [&](const auto& callback) {
      try {
        if (!callback()) result.stopped = true;
      } catch (...) {
        thrown = std::current_exception();
      }
      return !result.stopped && thrown == nullptr;
    };
    const auto on_response = [&](const httplib::Response& response) {
      read_head(response, head);
      location = is_redirect(response.status) ? response.get_header_value("Location") : "";
      if (is_redirect(response.status)) return false;
      result.head = head;
      return guarded([&] { return on_head(head); });
    };
    const auto on_content = [&](const char* data, size_t size) {
      if (options.cancel != nullptr && options.cancel->cancelled()) return false;
      return guarded([&] { return on_body({data, size}); });
    };
    std::optional<httplib::Result> answer;
    {
      const std::jthread watcher = watch(client, options.cancel);
      answer.emplace(
          client.Get(url.path, request_headers(url, range_from, options), on_response, on_content));
    }
    if (thrown != nullptr) std::rethrow_exception(thrown);
    if (options.cancel != nullptr && options.cancel->cancelled())
      fail(ErrorCode::cancelled, "the download was interrupted; run the same command again to go on");
    if (is_redirect(head.status) && !result.head) {
      const Url next = resolve_url(url, location);
      require(url.scheme != "https" || next.scheme == "https", ErrorCode::network,
              "{} redirects from https to plain http ({}); refused", url.origin(), next.origin());
      url = next;
      head.status = 0;
      continue;
    }
    const httplib::Error error = answer->error();
    require(error != httplib::Error::SSLServerVerification && error != httplib::Error::SSLLoadingCerts,
            ErrorCode::network, "the certificate of {} is not valid here", url.origin());
    if (!result.stopped && error != httplib::Error::Success) result.error = describe(error);
    return result;
  }
  fail(ErrorCode::network, "{} redirects more than 8 times", start.origin());
}

}  // namespace mneme::cli

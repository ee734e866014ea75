// What both halves of the parser share: the token cursor, error messages, the nesting guard.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "core/fail.h"
#include "text/jinja/ast.h"
#include "text/jinja/lexer.h"

namespace mneme::jinja {

class TokenStream {
 public:
  explicit TokenStream(std::string_view source) : tokens_(tokenize(source)) {}

  const Token& peek(size_t ahead = 0) const { return tokens_[std::min(at_ + ahead, tokens_.size() - 1)]; }
  const Token& next() { return tokens_[at_ + 1 < tokens_.size() ? at_++ : at_]; }

  bool at_name(std::string_view name, size_t ahead = 0) const {
    return peek(ahead).kind == TokenKind::name && peek(ahead).text == name;
  }
  bool at_op(std::string_view op, size_t ahead = 0) const {
    return peek(ahead).kind == TokenKind::op && peek(ahead).text == op;
  }
  bool skip_name(std::string_view name) { return at_name(name) && (next(), true); }
  bool skip_op(std::string_view op) { return at_op(op) && (next(), true); }
  void expect_op(std::string_view op) {
    if (!skip_op(op)) bad(fmt::format("expected '{}' but found {}", op, describe()));
  }
  std::string expect_name() {
    if (peek().kind != TokenKind::name) bad(fmt::format("expected a name but found {}", describe()));
    return next().text;
  }
  void expect(TokenKind kind, std::string_view what) {
    if (peek().kind != kind) bad(fmt::format("expected {} but found {}", what, describe()));
    next();
  }

  std::string describe() const {
    switch (peek().kind) {
      case TokenKind::end:
        return "the end of the template";
      case TokenKind::data:
        return "text";
      case TokenKind::block_begin:
        return "'{%'";
      case TokenKind::block_end:
        return "'%}'";
      case TokenKind::print_begin:
        return "'{{'";
      case TokenKind::print_end:
        return "'}}'";
      default:
        return fmt::format("'{}'", peek().text);
    }
  }
  [[noreturn]] void bad(std::string_view what) const {
    fail(ErrorCode::corrupt, "chat template line {}: {}", peek().line, what);
  }
  [[noreturn]] void unsupported(int line, std::string_view what) const {
    fail(ErrorCode::unsupported, "chat template line {}: {} is not supported", line, what);
  }

 private:
  std::vector<Token> tokens_;
  size_t at_ = 0;
};

/// Counts how deep the parser has recursed.
class DepthGuard {
 public:
  DepthGuard(int& depth, int limit, const TokenStream& tokens) : depth_(depth) {
    if (++depth_ > limit) {
      --depth_;
      fail(ErrorCode::limit, "chat template line {}: nested more than {} levels deep", tokens.peek().line,
           limit);
    }
  }
  ~DepthGuard() { --depth_; }
  DepthGuard(const DepthGuard&) = delete;
  DepthGuard& operator=(const DepthGuard&) = delete;

 private:
  int& depth_;
};

}  // namespace mneme::jinja

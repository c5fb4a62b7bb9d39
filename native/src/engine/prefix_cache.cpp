#include "prefix_cache.h"

#include <algorithm>

namespace tempora {
namespace {

std::int32_t common_length(const std::vector<std::int32_t>& run, const std::vector<std::int32_t>& tokens,
                           std::int32_t from) {
  const auto end = std::min(run.size(), tokens.size() - static_cast<std::size_t>(from));
  std::size_t length = 0;
  while (length < end && run[length] == tokens[static_cast<std::size_t>(from) + length]) ++length;
  return static_cast<std::int32_t>(length);
}

}  // namespace

// The deepest node below a root whose path the tokens begin with. A run that they leave after whole pages is cut there.
PrefixCache::Found PrefixCache::find(std::int32_t root, const std::vector<std::int32_t>& tokens) {
  Found found{root, 0};
  while (static_cast<std::size_t>(found.tokens) < tokens.size()) {
    std::int32_t best = -1, length = 0;
    for (const std::int32_t child : node(found.node).children) {
      const std::int32_t common = common_length(node(child).tokens, tokens, found.tokens);
      if (common > length) best = child, length = common;
    }
    if (best < 0) break;
    const bool whole = length == node(best).cache.length;
    if (!whole) length = length / kCachePage * kCachePage;
    if (length == 0) break;
    found = {whole ? best : cut(best, length), found.tokens + length};
    if (!whole) break;
  }
  return found;
}

std::int32_t PrefixCache::hold(std::int32_t root, const std::vector<std::int32_t>& tokens, std::int64_t spare) {
  const Found found = find(root, tokens);
  touch(found.node);
  ++node(found.node).users;
  const auto count = static_cast<std::int32_t>(tokens.size()) - found.tokens;
  if (!make_room(pages_for(count) + spare)) {
    --node(found.node).users;
    return -1;
  }
  if (count == 0) return found.node;
  const std::int32_t added = make_node(found.node);
  PrefixNode& fresh = node(added);
  fresh.tokens.assign(tokens.begin() + found.tokens, tokens.end());
  fresh.cache = {pool_.take(pages_for(count)), count};
  fresh.users = 1;
  touch(added);
  --node(found.node).users;
  return added;
}

void PrefixCache::release(std::int32_t index) {
  touch(index);
  --node(index).users;
}

void PrefixCache::adopt(std::int32_t parent, std::vector<std::int32_t> tokens, CachedTokens cache) {
  const auto wanted = static_cast<std::size_t>(pages_for(static_cast<std::int64_t>(tokens.size())));
  pool_.give_back({cache.pages.begin() + static_cast<std::ptrdiff_t>(wanted), cache.pages.end()});
  cache.pages.resize(wanted);
  const bool known = std::any_of(node(parent).children.begin(), node(parent).children.end(), [&](std::int32_t child) {
    return common_length(node(child).tokens, tokens, 0) == static_cast<std::int32_t>(tokens.size());
  });
  if (tokens.empty() || known) return pool_.give_back(cache.pages);
  const std::int32_t added = make_node(parent);
  PrefixNode& fresh = node(added);
  fresh.computed = static_cast<std::int32_t>(tokens.size());
  fresh.tokens = std::move(tokens);
  fresh.cache = {std::move(cache.pages), fresh.computed};
  touch(added);
}

bool PrefixCache::make_room(std::int64_t pages) {
  while (pool_.available() < pages) {
    std::int32_t oldest = -1;
    for (std::size_t i = 0; i < nodes_.size(); ++i) {
      const PrefixNode& one = nodes_[i];  // neither a root nor a number that is free
      if (one.parent < 0 || one.users > 0 || !one.children.empty()) continue;
      if (oldest < 0 || one.last_used < node(oldest).last_used) oldest = static_cast<std::int32_t>(i);
    }
    if (oldest < 0) return false;
    drop(oldest);
  }
  return true;
}

std::vector<std::int32_t> PrefixCache::path(std::int32_t index) const {
  std::vector<std::int32_t> nodes;
  for (; !is_root(index); index = node(index).parent) nodes.push_back(index);
  std::reverse(nodes.begin(), nodes.end());
  return nodes;
}

std::int32_t PrefixCache::new_node() {
  std::int32_t index = static_cast<std::int32_t>(nodes_.size());
  if (unused_.empty()) {
    nodes_.emplace_back();
  } else {
    index = unused_.back();
    unused_.pop_back();
    node(index) = {};
  }
  return index;
}

std::int32_t PrefixCache::make_node(std::int32_t parent) {
  const std::int32_t index = new_node();
  node(index).parent = parent;
  node(parent).children.push_back(index);
  return index;
}

// Gives the first `length` tokens of a run, whole pages, to a new node above it. Returns that one.
std::int32_t PrefixCache::cut(std::int32_t index, std::int32_t length) {
  const std::int32_t parent = node(index).parent;
  const std::int32_t above = make_node(parent);
  std::erase(node(parent).children, index);
  PrefixNode& lower = node(index);
  PrefixNode& upper = node(above);
  const auto pages = static_cast<std::ptrdiff_t>(length / kCachePage);
  upper.tokens.assign(lower.tokens.begin(), lower.tokens.begin() + length);
  lower.tokens.erase(lower.tokens.begin(), lower.tokens.begin() + length);
  upper.cache = {{lower.cache.pages.begin(), lower.cache.pages.begin() + pages}, length};
  lower.cache.pages.erase(lower.cache.pages.begin(), lower.cache.pages.begin() + pages);
  lower.cache.length -= length;
  upper.computed = std::min(lower.computed, length);
  lower.computed -= upper.computed;
  upper.last_used = lower.last_used;
  upper.children.push_back(index);
  lower.parent = above;
  return above;
}

void PrefixCache::touch(std::int32_t index) {
  ++clock_;
  for (; !is_root(index); index = node(index).parent) node(index).last_used = clock_;
}

void PrefixCache::drop(std::int32_t index) {
  PrefixNode& gone = node(index);
  pool_.give_back(gone.cache.pages);
  std::erase(node(gone.parent).children, index);
  gone = {};
  unused_.push_back(index);
}

}  // namespace tempora

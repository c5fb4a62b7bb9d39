// Blocks side by side on slabs: that they are apart from each other, cleared, and that memory and addresses go back.
#include "backend/cpu/slabs.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "test_support.h"

namespace tempora::test {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;

struct Block {
  char* data = nullptr;
  std::size_t bytes = 0;
  char mark = 0;
};

Block take(Slabs& slabs, std::size_t bytes, char mark) {
  char* data = static_cast<char*>(slabs.take(bytes));
  expect(data != nullptr &&
             reinterpret_cast<std::uintptr_t>(data) % static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE)) == 0,
         "a block is not at a page's beginning");
  expect(std::all_of(data, data + bytes, [](char byte) { return byte == 0; }), "a block is not cleared");
  std::fill(data, data + bytes, mark);
  return {data, bytes, mark};
}

bool whole(const Block& block) {
  return std::all_of(block.data, block.data + block.bytes, [&block](char byte) { return byte == block.mark; });
}

void check_random_blocks() {
  Slabs slabs;
  Random random(3);
  std::vector<Block> blocks;
  std::size_t most = 0;
  for (int i = 0; i < 1500; ++i) {
    if (blocks.size() > 40 || (!blocks.empty() && random.below(2) == 0)) {
      const auto at = blocks.begin() + random.below(static_cast<std::int64_t>(blocks.size()));
      expect(whole(*at), "a block was written by another's owner");
      slabs.give_back(at->data, at->bytes);
      blocks.erase(at);
    } else {
      const std::size_t bytes = Slabs::kLeast + static_cast<std::size_t>(random.below(3 << 20));
      blocks.push_back(take(slabs, bytes, static_cast<char>(1 + i % 100)));
    }
    most = std::max(most, slabs.count());
  }
  for (const Block& block : blocks) slabs.give_back(block.data, block.bytes);
  expect(most > 2, "all fitted " + std::to_string(most) + " slabs");
  expect(slabs.count() == 0, std::to_string(slabs.count()) + " slabs are left of which nothing is in use");
}

std::size_t resident(const char* data, std::size_t bytes) {
  std::vector<unsigned char> pages(bytes / static_cast<std::size_t>(sysconf(_SC_PAGESIZE)));
  expect(mincore(const_cast<char*>(data), bytes, pages.data()) == 0, "mincore failed");
  return static_cast<std::size_t>(std::count_if(pages.begin(), pages.end(), [](unsigned char p) { return p & 1; }));
}

void check_hole() {
  Slabs slabs;
  const Block hole = take(slabs, 8 * kMiB, 1), kept = take(slabs, Slabs::kLeast, 2);
  expect(kept.data == hole.data + hole.bytes, "two blocks are not side by side");
  expect(resident(hole.data, hole.bytes) > 0, "what was written is not in memory");
  slabs.give_back(hole.data, hole.bytes);
  expect(resident(hole.data, hole.bytes) == 0, "a hole holds memory");
  const Block before = take(slabs, kMiB, 3), small = take(slabs, kMiB, 4), after = take(slabs, kMiB, 5);
  slabs.give_back(small.data, small.bytes);
  expect(resident(small.data, small.bytes) == 0, "a hole smaller than a huge page is still mapped");
  for (const Block& block : {kept, before, after}) {
    expect(whole(block), "a neighbour's memory went with a hole");
    slabs.give_back(block.data, block.bytes);
  }
}

void check_largest() {
  Slabs slabs;
  std::vector<Block> blocks;
  for (char i = 1; i <= 9; ++i) blocks.push_back(take(slabs, Slabs::kMost, i));
  expect(slabs.count() == 3, "nine of the largest blocks lie on " + std::to_string(slabs.count()) + " slabs");
  for (const Block& block : blocks) expect(whole(block), "a block reaches into another");
  for (const Block& block : blocks) slabs.give_back(block.data, block.bytes);
  expect(slabs.count() == 0, "slabs are left of which nothing is in use");
}

}  // namespace
}  // namespace tempora::test

int main(int argc, char** argv) {
  using namespace tempora::test;
  TestRun run(argc, argv);
  run.run("blocks on slabs are apart, cleared, and go back whole", check_random_blocks);
  run.run("a block given back leaves no memory behind", check_hole);
  run.run("the largest blocks on slabs", check_largest);
  return run.finish();
}

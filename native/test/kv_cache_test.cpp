// Paths through the paged cache.
#include "engine/kv_cache.h"

#include "test_support.h"

namespace tempora::test {
namespace {

// The pages of each row's path, in order.
std::vector<std::vector<std::int32_t>> pages_of_rows(const CachePaths& paths) {
  std::vector<std::vector<std::int32_t>> rows(paths.position.size());
  for (std::size_t row = 0; row < rows.size(); ++row) {
    for (std::int32_t s = paths.row_segment[row]; s < paths.row_segment[row + 1]; ++s) {
      const CachePaths::Segment& segment = paths.segments[static_cast<std::size_t>(s)];
      const auto begin = paths.pages.begin() + segment.first_page;
      rows[row].insert(rows[row].end(), begin, begin + pages_for(segment.length));
    }
  }
  return rows;
}

void check_shared_pages() {
  const CachedTokens prompt{{7, 3, 9}, 40}, other{{7, 4, 5}, 40}, first{{1}, 5}, second{{2, 8}, 20};
  PathBuilder builder;
  const auto add = [&](const CachedTokens& above, std::int32_t length, const CachedTokens& own) {
    builder.begin_row(length + own.length - 1, 0);
    builder.add_segment(above, length);
    builder.add_segment(own, own.length);
  };
  add(prompt, 40, first);
  add(prompt, 40, second);
  add(prompt, 12, second);
  add(other, 40, first);
  builder.repeat_row();
  const CachePaths paths = builder.take();
  const std::vector<std::vector<std::int32_t>> want = {
      {7, 3, 9, 1}, {7, 3, 9, 2, 8}, {7, 2, 8}, {7, 4, 5, 1}, {7, 4, 5, 1}};
  expect(pages_of_rows(paths) == want, "rows look along other pages than theirs");
  expect(paths.position == std::vector<std::int32_t>{44, 59, 31, 44, 44}, "rows look from other positions than theirs");
  expect(paths.pages.size() == 3 + 1 + 2 + 3 + 1, "pages that neighbours have in common are named twice");
}

}  // namespace
}  // namespace tempora::test

int main(int argc, char** argv) {
  tempora::test::TestRun run(argc, argv);
  run.run("rows name the pages once that they have in common", tempora::test::check_shared_pages);
  return run.finish();
}

# One test executable for each test/*_test.cpp, one bench for each bench/*.cpp. The other sources of test/ and bench/
# that define no main() are *_support.cpp or, in test/, anything that is not *_test.cpp. Those named cuda_* are
# CudaTests.cmake's; the others ask the CPU backend.
enable_testing()

# Beside an addon they are built only when asked for: --target tempora_tests, --target tempora_benches.
set(only_when_asked "")
set(with_all ALL)
if(CMAKE_JS_INC)
  set(only_when_asked EXCLUDE_FROM_ALL)
  set(with_all "")
endif()
add_custom_target(tempora_tests ${with_all})
add_custom_target(tempora_benches ${with_all})

file(GLOB test_sources CONFIGURE_DEPENDS test/*_test.cpp)
file(GLOB test_support_sources CONFIGURE_DEPENDS test/*.cpp)
file(GLOB bench_sources CONFIGURE_DEPENDS bench/*.cpp)
file(GLOB bench_support_sources CONFIGURE_DEPENDS bench/*_support.cpp)
list(FILTER test_support_sources EXCLUDE REGEX "_test\\.cpp$")
list(REMOVE_ITEM bench_sources ${bench_support_sources} "")
list(FILTER test_sources EXCLUDE REGEX "/cuda_[^/]*$")
list(FILTER bench_sources EXCLUDE REGEX "/cuda_[^/]*$")
if(NOT TEMPORA_CPU)
  set(test_sources "")
  set(bench_sources "")
endif()

set(support_library "")
if(test_support_sources)
  add_library(test_support STATIC ${only_when_asked} ${test_support_sources})
  target_link_libraries(test_support PUBLIC tempora_engine)
  set(support_library test_support)
endif()

foreach(source IN LISTS test_sources)
  get_filename_component(name ${source} NAME_WE)
  add_executable(${name} ${only_when_asked} ${source})
  target_link_libraries(${name} PRIVATE ${support_library} tempora_engine)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/test)
  add_dependencies(tempora_tests ${name})
  add_test(NAME ${name} COMMAND ${name} WORKING_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR}/..)
endforeach()

# The one part of the addon that knows no JavaScript.
if(TARGET concurrency_test)
  target_sources(concurrency_test PRIVATE src/addon/worker_thread.cpp)
endif()

# What asks every instruction set is built a second time, for AMX on a machine without it.
if(TARGET kernels_amx)
  add_subdirectory(test/amx_emulation)
  foreach(name ops_test attention_tree_test attention_cached_test)
    add_executable(amx_${name} ${only_when_asked} test/${name}.cpp)
    target_link_libraries(amx_${name} PRIVATE amx_emulation ${support_library} tempora_engine)
    set_target_properties(amx_${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/test)
    add_dependencies(tempora_tests amx_${name})
    add_test(NAME amx_${name} COMMAND amx_${name} WORKING_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR}/..)
  endforeach()
endif()

foreach(source IN LISTS bench_sources)
  get_filename_component(name ${source} NAME_WE)
  add_executable(${name} ${only_when_asked} ${source} ${bench_support_sources})
  target_link_libraries(${name} PRIVATE ${support_library} tempora_engine)
  target_include_directories(${name} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/test)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bench)
  add_dependencies(tempora_benches ${name})
endforeach()
# It counts the regions of ThreadTeam::run, see there.
if(TARGET threads_bench)
  target_link_options(threads_bench PRIVATE "LINKER:--wrap=_ZN7tempora10ThreadTeam3runEPFvPKviES2_")
endif()

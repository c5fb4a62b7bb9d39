# Each test/cuda_*_test.cpp is built twice. test/<name> runs the kernels on a device that is emulated on the CPU
# (test/cuda_emulation): that checks their arithmetic anywhere, and belongs to tempora_tests. gpu/<name> wants a device, is
# there only with the CUDA backend, and belongs to tempora_gpu_tests, with the benches bench/cuda_*.cpp as gpu/<name>.
file(GLOB cuda_test_sources CONFIGURE_DEPENDS test/cuda_*_test.cpp)
file(GLOB cuda_support_sources CONFIGURE_DEPENDS test/cuda/*.cpp)
list(FILTER cuda_support_sources EXCLUDE REGEX "/schedule_[a-z]+\\.cpp$")
file(GLOB cuda_bench_sources CONFIGURE_DEPENDS bench/cuda_*.cpp)

# As the kernels are compiled there.
set_source_files_properties(test/cuda_emulation/access_cases.cpp PROPERTIES COMPILE_OPTIONS -fsanitize=alignment)
# Linked before the engine, whose own backend/cuda or no_cuda.cpp then stays in its archive.
add_subdirectory(test/cuda_emulation)
foreach(source IN LISTS cuda_test_sources)
  get_filename_component(name ${source} NAME_WE)
  add_executable(
    ${name} ${only_when_asked} ${source} ${cuda_support_sources} test/cuda/schedule_emulated.cpp
            test/cuda_emulation/hopper_cases.cpp test/cuda_emulation/access_cases.cpp
  )
  target_include_directories(${name} PRIVATE test)
  target_link_libraries(${name} PRIVATE cuda_emulation test_support tempora_engine)
  add_dependencies(${name} cublaslt_emulation)
  set_target_properties(
    ${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/test BUILD_RPATH $<TARGET_FILE_DIR:cublaslt_emulation>
  )
  add_dependencies(tempora_tests ${name})
  add_test(NAME ${name} COMMAND ${name} WORKING_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR}/..)
endforeach()

if(NOT TEMPORA_HAS_CUDA)
  return()
endif()

add_custom_target(tempora_gpu_tests ${with_all})
function(add_gpu_executable name)
  add_executable(gpu_${name} ${only_when_asked} ${ARGN} ${cuda_support_sources} test/cuda/schedule_device.cpp)
  target_include_directories(gpu_${name} PRIVATE test)
  target_include_directories(gpu_${name} SYSTEM PRIVATE ${TEMPORA_CUDA_INCLUDES})
  target_link_libraries(gpu_${name} PRIVATE test_support tempora_engine)
  set_target_properties(
    gpu_${name} PROPERTIES OUTPUT_NAME ${name} RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/gpu
                           CUDA_RUNTIME_LIBRARY Static
  )
  add_dependencies(tempora_gpu_tests gpu_${name})
endfunction()

foreach(source IN LISTS cuda_test_sources cuda_bench_sources)
  get_filename_component(name ${source} NAME_WE)
  add_gpu_executable(${name} ${source})
endforeach()

# The addon tempora.node. Only under cmake-js, which defines CMAKE_JS_INC (the headers of node-api-headers
# and node-addon-api), CMAKE_JS_SRC and CMAKE_JS_LIB.
file(GLOB addon_sources CONFIGURE_DEPENDS src/addon/*.cpp)
if(NOT addon_sources)
  message(STATUS "Addon: native/src/addon has no sources yet")
  return()
endif()

add_library(tempora SHARED ${addon_sources} ${CMAKE_JS_SRC})
set_target_properties(tempora PROPERTIES PREFIX "" SUFFIX ".node" CXX_VISIBILITY_PRESET hidden)
target_include_directories(tempora SYSTEM PRIVATE ${CMAKE_JS_INC})
# Terminating a Worker in the middle of a job would abort the process without the last one.
target_compile_definitions(
  tempora PRIVATE NAPI_VERSION=9 NODE_ADDON_API_CPP_EXCEPTIONS NAPI_CPP_EXCEPTIONS
                  NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS
)
target_link_libraries(tempora PRIVATE tempora_engine ${CMAKE_JS_LIB})
if(APPLE)
  target_link_options(tempora PRIVATE -undefined dynamic_lookup)
endif()
